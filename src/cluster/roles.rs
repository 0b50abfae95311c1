//! Which node is the primary, and who is fenced off.
//!
//! The only evidence is what a node says of itself on a connection that still lives ([`Claim`]).
//! [`Roles::decide`] looks at all claims together, after every change of any of them:
//!
//! | what is claimed                                           | then                                    |
//! |-----------------------------------------------------------|-----------------------------------------|
//! | another system identifier than the cluster's              | unknown, alert                          |
//! | a role that the node's settings rule out                  | unknown, alert                          |
//! | in recovery                                               | replica                                 |
//! | primary, on an older timeline than the newest ever seen   | fenced, alert                           |
//! | primary, alone on the newest timeline                     | the primary                             |
//! | the same, but an incumbent of this timeline is missing    | fenced, alert: it may still be at work  |
//! | two or more primaries on the newest timeline              | all fenced, alert; an incumbent whose connection never broke stays |
//!
//! The first primary isn't chosen before every node was asked once. Nodes in maintenance take no
//! part: that is how an operator settles a contest. Two nodes that once claimed the same timeline
//! stay in contest until one is a replica, in maintenance, or on a newer timeline.
//!
//! Invariants: a fenced node is never the primary; the newest timeline and the epoch only grow, but
//! for a cluster whose every node has a new system identifier; no clock is looked at.

use super::{Alert, NodeId, Role};

/// What a node's settings allow it to be.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Expected {
    #[default]
    Any,
    Primary,
    Replica,
}

/// What a node says of itself, on connection `conn`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Claim {
    pub conn: u64,
    pub in_recovery: bool,
    pub timeline: Option<u32>,
    /// The system identifier.
    pub system: Option<u64>,
}

impl Claim {
    /// This claim, with the newer timeline of the one before where both come from one connection:
    /// a replica never goes back to an older timeline, but doesn't always tell the newest.
    #[must_use]
    pub fn following(self, before: Option<Self>) -> Self {
        let known = before
            .filter(|b| b.conn == self.conn && b.in_recovery && self.in_recovery)
            .and_then(|b| b.timeline);
        Self {
            timeline: self.timeline.max(known),
            ..self
        }
    }
}

/// One node, as far as roles are concerned.
#[derive(Clone, Copy, Debug)]
pub struct Primacy {
    pub id: NodeId,
    /// None: no connection lives that would say.
    pub claim: Option<Claim>,
    pub expected: Expected,
    pub maintenance: bool,
    /// Was asked at least once.
    pub asked: bool,
    /// Up, and its claim was confirmed since the last disturbance.
    pub usable: bool,
}

/// What follows from all claims; both lists are in the order of the nodes that were given.
#[derive(Clone, Debug, PartialEq, Eq)]
#[must_use]
pub struct Verdict {
    pub primary: Option<NodeId>,
    pub roles: Vec<Role>,
    pub alerts: Vec<Option<Alert>>,
    /// `primary` is another one than before, or on another timeline: a new epoch.
    pub changed: bool,
}

/// What has to be remembered between decisions.
#[derive(Clone, Debug, Default)]
pub struct Roles {
    system: Option<u64>,
    newest: u32,
    incumbent: Option<Incumbent>,
    /// Claimed `newest` together, unsettled; none or at least two.
    contenders: Vec<NodeId>,
    epoch: u64,
}

/// The last primary that was trusted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Incumbent {
    node: NodeId,
    timeline: u32,
    conn: u64,
}

/// How one node stands in this decision.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Standing {
    Silent,
    Foreign {
        expected: u64,
        found: u64,
    },
    Misplaced,
    Replica,
    /// A primary that an operator took out.
    Absent {
        timeline: u32,
    },
    /// A primary.
    Candidate {
        timeline: u32,
        conn: u64,
    },
}

impl Roles {
    /// Counts changes of primary.
    #[must_use]
    pub fn epoch(&self) -> u64 {
        self.epoch
    }

    /// The last trusted primary and its timeline (0: not known), whether it still is one or not.
    #[must_use]
    pub fn incumbent(&self) -> Option<(NodeId, u32)> {
        self.incumbent.map(|i| (i.node, i.timeline))
    }

    /// Decides by all nodes' claims.
    pub fn decide(&mut self, nodes: &[Primacy]) -> Verdict {
        let all_asked = nodes.iter().all(|n| n.asked || n.maintenance);
        let settled = self.settle_system(nodes, all_asked);
        let standings: Vec<Standing> = nodes.iter().map(|n| self.standing(n, nodes)).collect();
        if settled {
            self.note_timelines(nodes, &standings);
        }
        let with_ids = || nodes.iter().map(|n| n.id).zip(standings.iter().copied());
        let top: Vec<(NodeId, u64)> = with_ids()
            .filter_map(|(id, s)| match s {
                Standing::Candidate { timeline, conn } if timeline >= self.newest => {
                    Some((id, conn))
                }
                _ => None,
            })
            .collect();
        // Who isn't there any more gave up, too.
        let gave_up = |id: NodeId| {
            let mut found = nodes.iter().zip(&standings).filter(|(n, _)| n.id == id);
            !found.next().is_some_and(|(node, standing)| {
                !node.maintenance
                    && matches!(standing, Standing::Silent | Standing::Candidate { .. })
            })
        };
        self.contenders.retain(|id| !gave_up(*id));
        if self.contenders.len() < 2 {
            self.contenders.clear();
        }
        let winner = if settled && (all_asked || self.incumbent.is_some()) {
            self.winner(&top, gave_up)
        } else {
            None
        };
        let (primary, changed) = self.elect(winner, nodes);
        let mut verdict = Verdict {
            primary,
            roles: Vec::with_capacity(nodes.len()),
            alerts: Vec::with_capacity(nodes.len()),
            changed,
        };
        for (id, standing) in with_ids() {
            let (role, alert) = self.role(id, standing, winner);
            verdict.roles.push(role);
            verdict.alerts.push(alert);
        }
        verdict
    }

    /// Finds the cluster's system identifier; false while it can't be told.
    fn settle_system(&mut self, nodes: &[Primacy], all_asked: bool) -> bool {
        let taking_part = || nodes.iter().filter(|n| !n.maintenance);
        let said = || taking_part().filter_map(|n| n.claim?.system);
        if let Some(system) = self.system {
            let all_said = taking_part().all(|n| n.claim.is_some_and(|c| c.system.is_some()));
            if !all_said || said().count() == 0 || said().any(|s| s == system) {
                return true;
            }
            // Every node was set up anew: this is another cluster, and nothing of the old one
            // can come back.
            *self = Self {
                epoch: self.epoch,
                ..Self::default()
            };
        }
        let Some(first) = said().next() else {
            return true;
        };
        if !all_asked {
            return false;
        }
        if said().all(|s| s == first) {
            self.system = Some(first);
            return true;
        }
        let mut primaries = taking_part()
            .filter(|n| n.expected != Expected::Replica)
            .filter_map(|n| n.claim.filter(|c| !c.in_recovery)?.system);
        self.system = match (primaries.next(), primaries.next()) {
            (Some(only), None) => Some(only),
            _ => None,
        };
        self.system.is_some()
    }

    fn standing(&self, node: &Primacy, nodes: &[Primacy]) -> Standing {
        let Some(claim) = node.claim else {
            return Standing::Silent;
        };
        let other_than = |found: u64| match self.system {
            Some(system) => Some(system).filter(|s| *s != found),
            None => nodes
                .iter()
                .filter(|n| !n.maintenance)
                .filter_map(|n| n.claim?.system)
                .find(|s| *s != found),
        };
        if let Some(found) = claim.system
            && let Some(expected) = other_than(found)
        {
            return Standing::Foreign { expected, found };
        }
        let timeline = claim.timeline.unwrap_or(0);
        match (claim.in_recovery, node.expected) {
            (true, Expected::Primary) | (false, Expected::Replica) => Standing::Misplaced,
            (true, Expected::Any | Expected::Replica) => Standing::Replica,
            (false, _) if node.maintenance => Standing::Absent { timeline },
            (false, _) => Standing::Candidate {
                timeline,
                conn: claim.conn,
            },
        }
    }

    /// A timeline that some replica follows exists, too, even when its primary doesn't answer.
    fn note_timelines(&mut self, nodes: &[Primacy], standings: &[Standing]) {
        for (node, standing) in nodes.iter().zip(standings) {
            let seen = match standing {
                Standing::Replica if !node.maintenance => {
                    node.claim.and_then(|c| c.timeline).unwrap_or(0)
                }
                Standing::Candidate { timeline, .. } => *timeline,
                Standing::Replica
                | Standing::Silent
                | Standing::Foreign { .. }
                | Standing::Misplaced
                | Standing::Absent { .. } => 0,
            };
            if seen > self.newest {
                self.newest = seen;
                self.contenders.clear();
            }
        }
    }

    /// The node that deserves to be the primary, usable or not.
    fn winner(
        &mut self,
        top: &[(NodeId, u64)],
        gave_up: impl Fn(NodeId) -> bool,
    ) -> Option<NodeId> {
        let incumbent = self.incumbent.filter(|i| i.timeline >= self.newest);
        let unbroken = incumbent.filter(|i| top.contains(&(i.node, i.conn)));
        let contested = match (top, incumbent) {
            ([], _) => return None,
            ([(only, _)], None) if !self.contenders.contains(only) => return Some(*only),
            ([(only, _)], Some(i)) if i.node == *only => return Some(*only),
            ([(only, _)], Some(i)) if gave_up(i.node) => return Some(*only),
            // An incumbent that gave up contends no more.
            (_, i) => top
                .iter()
                .map(|(id, _)| *id)
                .chain(i.map(|i| i.node).filter(|id| !gave_up(*id))),
        };
        for id in contested {
            if !self.contenders.contains(&id) {
                self.contenders.push(id);
            }
        }
        unbroken.map(|i| i.node)
    }

    fn elect(&mut self, winner: Option<NodeId>, nodes: &[Primacy]) -> (Option<NodeId>, bool) {
        let elected = winner.and_then(|id| {
            let node = nodes.iter().find(|n| n.id == id).filter(|n| n.usable)?;
            let claim = node.claim?;
            Some(Incumbent {
                node: id,
                timeline: claim.timeline.unwrap_or(0),
                conn: claim.conn,
            })
        });
        let Some(new) = elected else {
            return (None, false);
        };
        let changed = self
            .incumbent
            .is_none_or(|old| (old.node, old.timeline) != (new.node, new.timeline));
        self.epoch += u64::from(changed);
        self.incumbent = Some(new);
        (Some(new.node), changed)
    }

    fn role(
        &self,
        id: NodeId,
        standing: Standing,
        winner: Option<NodeId>,
    ) -> (Role, Option<Alert>) {
        match standing {
            Standing::Silent => (Role::Unknown, None),
            Standing::Foreign { expected, found } => (
                Role::Unknown,
                Some(Alert::ForeignSystem { expected, found }),
            ),
            Standing::Misplaced => (Role::Unknown, Some(Alert::UnexpectedRole)),
            Standing::Replica => (Role::Replica, None),
            Standing::Candidate { timeline, .. } | Standing::Absent { timeline }
                if timeline < self.newest =>
            {
                let newest = self.newest;
                (Role::Fenced, Some(Alert::Superseded { timeline, newest }))
            }
            Standing::Absent { .. } => {
                let last = winner.is_none() && self.incumbent.is_some_and(|i| i.node == id);
                (if last { Role::Primary } else { Role::Unknown }, None)
            }
            Standing::Candidate { .. } if winner == Some(id) => (Role::Primary, None),
            Standing::Candidate { .. } => match self.contenders.iter().find(|c| **c != id) {
                Some(with) if self.contenders.contains(&id) => {
                    (Role::Fenced, Some(Alert::Contested { with: *with }))
                }
                _ => (Role::Unknown, None),
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A primary on a timeline, on connection `conn`.
    fn primary(timeline: u32, conn: u64) -> Primacy {
        node(false, timeline, conn)
    }

    fn replica(timeline: u32) -> Primacy {
        node(true, timeline, 9)
    }

    fn node(in_recovery: bool, timeline: u32, conn: u64) -> Primacy {
        Primacy {
            // Its place, once it is in a list.
            id: NodeId(0),
            claim: Some(Claim {
                conn,
                in_recovery,
                timeline: Some(timeline),
                system: Some(77),
            }),
            expected: Expected::Any,
            maintenance: false,
            asked: true,
            usable: true,
        }
    }

    fn silent() -> Primacy {
        Primacy {
            claim: None,
            usable: false,
            ..primary(1, 1)
        }
    }

    fn out(node: Primacy) -> Primacy {
        Primacy {
            maintenance: true,
            usable: false,
            ..node
        }
    }

    fn only(expected: Expected, node: Primacy) -> Primacy {
        Primacy { expected, ..node }
    }

    fn of(system: u64, mut node: Primacy) -> Primacy {
        if let Some(claim) = &mut node.claim {
            claim.system = Some(system);
        }
        node
    }

    fn unasked() -> Primacy {
        Primacy {
            asked: false,
            ..silent()
        }
    }

    /// The same nodes, each with its place as its id.
    fn placed(nodes: &[Primacy]) -> Vec<Primacy> {
        let place = |(id, node): (u16, &Primacy)| Primacy {
            id: NodeId(id),
            ..*node
        };
        (0..).zip(nodes).map(place).collect()
    }

    /// Primary after each step, and the epoch after all.
    fn play(steps: &[&[Primacy]]) -> (Vec<Option<u16>>, u64, Verdict) {
        let mut roles = Roles::default();
        let mut primaries = Vec::new();
        let mut last = None;
        for step in steps {
            let verdict = roles.decide(&placed(step));
            primaries.push(verdict.primary.map(|id| id.0));
            last = Some(verdict);
        }
        (primaries, roles.epoch(), last.unwrap())
    }

    #[test]
    fn the_primary_is_the_one_that_deserves_it() {
        const NONE: Option<u16> = None;
        const A: Option<u16> = Some(0);
        const B: Option<u16> = Some(1);
        type Case<'a> = (&'a str, &'a [&'a [Primacy]], &'a [Option<u16>], u64);
        let table: &[Case<'_>] = &[
            (
                "one primary, one replica",
                &[&[primary(1, 1), replica(1)]],
                &[A],
                1,
            ),
            (
                "not before all were asked",
                &[&[primary(1, 1), unasked()], &[primary(1, 1), silent()]],
                &[NONE, A],
                1,
            ),
            (
                "the same after a restart",
                &[
                    &[primary(1, 1), replica(1)],
                    &[silent(), replica(1)],
                    &[primary(1, 2), replica(1)],
                ],
                &[A, NONE, A],
                1,
            ),
            (
                "promotion",
                &[
                    &[primary(1, 1), replica(1)],
                    &[silent(), replica(1)],
                    &[silent(), primary(2, 9)],
                ],
                &[A, NONE, B],
                2,
            ),
            (
                "promotion while the old one lives",
                &[
                    &[primary(1, 1), replica(1)],
                    &[primary(1, 1), primary(2, 9)],
                ],
                &[A, B],
                2,
            ),
            (
                "the old one returns alone",
                &[
                    &[primary(1, 1), replica(1)],
                    &[silent(), primary(2, 9)],
                    &[silent(), silent()],
                    &[primary(1, 2), silent()],
                ],
                &[A, B, NONE, NONE],
                2,
            ),
            (
                "a replica knows of a newer timeline",
                &[&[primary(1, 1), replica(2)]],
                &[NONE],
                0,
            ),
            (
                "the same node on a new timeline is a new epoch",
                &[
                    &[primary(1, 1), silent()],
                    &[silent(), silent()],
                    &[primary(3, 2), silent()],
                ],
                &[A, NONE, A],
                2,
            ),
            (
                "two at the start",
                &[&[primary(1, 1), primary(1, 2)]],
                &[NONE],
                0,
            ),
            (
                "one of the two goes silent",
                &[&[primary(1, 1), primary(1, 2)], &[primary(1, 1), silent()]],
                &[NONE, NONE],
                0,
            ),
            (
                "one of the two is taken out",
                &[
                    &[primary(1, 1), primary(1, 2)],
                    &[primary(1, 1), out(primary(1, 2))],
                ],
                &[NONE, A],
                1,
            ),
            (
                "one of the two becomes a replica",
                &[
                    &[primary(1, 1), primary(1, 2)],
                    &[replica(1), primary(1, 2)],
                ],
                &[NONE, B],
                1,
            ),
            (
                "an unbroken incumbent stays",
                &[
                    &[primary(1, 1), replica(1)],
                    &[primary(1, 1), primary(1, 2)],
                ],
                &[A, A],
                1,
            ),
            (
                "a broken one doesn't",
                &[
                    &[primary(1, 1), replica(1)],
                    &[primary(1, 1), primary(1, 2)],
                    &[silent(), primary(1, 2)],
                    &[primary(1, 3), primary(1, 2)],
                ],
                &[A, A, NONE, NONE],
                1,
            ),
            (
                "but alone again it does",
                &[
                    &[primary(1, 1), replica(1)],
                    &[primary(1, 1), primary(1, 2)],
                    &[silent(), primary(1, 2)],
                    &[primary(1, 3), silent()],
                ],
                &[A, A, NONE, A],
                1,
            ),
            (
                "a newcomer on the timeline of a missing incumbent",
                &[&[primary(1, 1), replica(1)], &[silent(), primary(1, 2)]],
                &[A, NONE],
                1,
            ),
            (
                "until the incumbent is a replica",
                &[
                    &[primary(1, 1), replica(1)],
                    &[silent(), primary(1, 2)],
                    &[replica(1), primary(1, 2)],
                ],
                &[A, NONE, B],
                2,
            ),
            (
                "or an operator takes it out",
                &[
                    &[primary(1, 1), replica(1)],
                    &[silent(), primary(1, 2)],
                    &[out(silent()), primary(1, 2)],
                ],
                &[A, NONE, B],
                2,
            ),
            (
                "maintenance takes the primary's role",
                &[
                    &[primary(1, 1), replica(1)],
                    &[out(primary(1, 1)), replica(1)],
                    &[primary(1, 1), replica(1)],
                ],
                &[A, NONE, A],
                1,
            ),
            (
                "a newer timeline in maintenance counts for nothing",
                &[&[primary(1, 1), out(primary(2, 2))]],
                &[A],
                1,
            ),
            (
                "a clone that may only be a replica",
                &[&[primary(1, 1), only(Expected::Replica, primary(2, 2))]],
                &[A],
                1,
            ),
            (
                "one that may only be a primary, and isn't",
                &[&[primary(1, 1), only(Expected::Primary, replica(1))]],
                &[A],
                1,
            ),
            (
                "a foreign replica",
                &[&[primary(1, 1), of(5, replica(9))]],
                &[A],
                1,
            ),
            (
                "a foreign primary comes",
                &[
                    &[primary(1, 1), silent()],
                    &[primary(1, 1), of(5, primary(9, 2))],
                ],
                &[A, A],
                1,
            ),
            (
                "a foreign primary alone",
                &[
                    &[primary(1, 1), silent()],
                    &[silent(), of(5, primary(9, 2))],
                ],
                &[A, NONE],
                1,
            ),
            (
                "two clusters at the start",
                &[&[primary(1, 1), of(5, primary(9, 2))]],
                &[NONE],
                0,
            ),
            (
                "all nodes set up anew",
                &[
                    &[primary(4, 1), replica(4)],
                    &[silent(), silent()],
                    &[of(5, primary(1, 2)), silent()],
                    &[of(5, primary(1, 2)), of(5, replica(1))],
                ],
                &[A, NONE, NONE, A],
                2,
            ),
        ];
        for (why, steps, primaries, epoch) in table {
            let (got, last, _) = play(steps);
            assert_eq!((got.as_slice(), last), (*primaries, *epoch), "{why}");
        }
    }

    #[test]
    fn every_second_primary_is_fenced_with_its_reason() {
        let (_, _, verdict) = play(&[
            &[primary(1, 1), replica(1), replica(1)],
            &[primary(1, 1), primary(2, 9), replica(1)],
        ]);
        assert_eq!(verdict.roles, [Role::Fenced, Role::Primary, Role::Replica]);
        let superseded = Alert::Superseded {
            timeline: 1,
            newest: 2,
        };
        assert_eq!(verdict.alerts, [Some(superseded), None, None]);

        let (_, _, verdict) = play(&[
            &[primary(1, 1), replica(1)],
            &[primary(1, 1), primary(1, 2)],
        ]);
        assert_eq!(verdict.roles, [Role::Primary, Role::Fenced]);
        let contested = Alert::Contested { with: NodeId(0) };
        assert_eq!(verdict.alerts, [None, Some(contested)]);

        let (_, _, verdict) = play(&[&[primary(1, 1), primary(1, 2)]]);
        assert_eq!(verdict.roles, [Role::Fenced, Role::Fenced]);
        assert!(verdict.alerts.iter().all(Option::is_some));
    }

    #[test]
    fn a_primary_that_is_not_usable_yet_is_known_but_not_used() {
        let recovering = Primacy {
            usable: false,
            ..primary(2, 2)
        };
        let (primaries, epoch, verdict) =
            play(&[&[primary(1, 1), replica(1)], &[primary(1, 1), recovering]]);
        assert_eq!(
            (primaries.as_slice(), epoch),
            ([Some(0), None].as_slice(), 1)
        );
        assert_eq!(verdict.roles, [Role::Fenced, Role::Primary]);
    }
}

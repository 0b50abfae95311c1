//! An explanation without a running proxy: the nodes are asked for their roles and the primary for
//! its catalogue. Replicas that answer are taken as caught up.

use std::{sync::Arc, time::Duration};

use serde_json::{Value, json};

use crate::{
    cli::node::{self, Session},
    cluster::{Health, NodeId, NodeView, Role, View},
    config::{Database, Settings},
    monitor::discovery::nodes_now,
    routing::{Ask, MustSee, Policy, Random, Target, route},
    session::{Own, demand::Needs},
    sql::{
        Catalogue, CatalogueBuilder, Kind, Lexing, catalogue::QUERIES, classify,
        explain as explain_text,
    },
};

/// Where a fresh session would send `text`, and which node's catalogue says so.
///
/// # Errors
/// No such database, or no node answers.
pub(super) async fn explain(
    settings: &Settings,
    database: Option<&str>,
    text: &str,
) -> Result<(Value, String), String> {
    let found = nodes_now(
        &settings.failover,
        settings.monitor.timeout,
        &settings.nodes,
    );
    let settings = &Settings {
        nodes: found.await?,
        ..settings.clone()
    };
    let (entry, dbname) = find(settings, database)?;
    let mut sessions = Vec::new();
    let mut nodes = Vec::new();
    let mut failures = Vec::new();
    for (n, node) in settings.nodes.iter().enumerate() {
        let mut seen = NodeView::new(id(n), Arc::clone(&node.name));
        seen.zone = Arc::clone(&node.zone);
        seen.weight = node.weight;
        match open(settings, n, dbname).await {
            Ok((session, role)) => {
                seen.role = role;
                seen.health = Health::Up;
                seen.lag = Some(Duration::ZERO);
                seen.lag_bytes = Some(0);
                sessions.push((n, role, session));
            }
            Err(reason) => {
                seen.health = Health::Down;
                failures.push(format!("{}: {reason}", node.name));
            }
        }
        nodes.push(seen);
    }
    let primary = sessions.iter().find(|(_, role, _)| *role == Role::Primary);
    // A replica's catalogue is the primary's, a little older.
    let Some((n, _, session)) = primary.or(sessions.first()) else {
        return Err(failures.join("\n"));
    };
    let name = settings.nodes.get(*n).map_or("?", |node| &*node.name);
    let catalogue = load(session)
        .await
        .map_err(|reason| format!("{name}: {reason}"))?;
    let view = View {
        nodes: nodes.into(),
        primary: primary.map(|(n, ..)| id(*n)),
        epoch: 0,
        epoch_start: None,
        withheld: None,
    };
    let by = format!(
        "the catalogue of {name}, as no running proxy was asked: replicas that answer count as caught up"
    );
    Ok((
        decide(text, &catalogue, &Policy::from(&entry.routing), &view),
        by,
    ))
}

/// The entry of a database, and its name on the nodes.
fn find<'a>(
    settings: &'a Settings,
    wanted: Option<&'a str>,
) -> Result<(&'a Database, &'a str), String> {
    let first = settings
        .databases
        .iter()
        .find(|database| database.name != "*");
    let name = wanted.or(first.map(|database| database.name.as_str()));
    let name = name.unwrap_or(&settings.monitor.database);
    let entry = settings
        .database(name)
        .ok_or_else(|| format!("there is no database {name:?} in the configuration"))?;
    Ok((entry, entry.dbname.as_deref().unwrap_or(name)))
}

fn id(n: usize) -> NodeId {
    NodeId(u16::try_from(n).unwrap_or(u16::MAX))
}

async fn open(settings: &Settings, n: usize, dbname: &str) -> Result<(Session, Role), String> {
    let node = settings.nodes.get(n).ok_or("no such node")?;
    let monitor = &settings.monitor;
    let session = node::connect(node, &monitor.user, monitor.password.as_ref(), dbname).await?;
    let row = session.row("select pg_is_in_recovery()").await?;
    let role = match row.first() {
        Some(Some(recovery)) if recovery == "t" => Role::Replica,
        _ => Role::Primary,
    };
    Ok((session, role))
}

async fn load(session: &Session) -> Result<Catalogue, String> {
    let mut builder = CatalogueBuilder::new();
    for query in QUERIES {
        for row in session.rows(query.sql).await? {
            let columns: Vec<Option<&str>> = row.iter().map(Option::as_deref).collect();
            builder.row(query.id, &columns);
        }
    }
    Ok(builder.finish(0))
}

fn decide(text: &str, catalogue: &Catalogue, policy: &Policy, view: &View) -> Value {
    let text = text.as_bytes();
    let told = explain_text(text, Lexing::default(), Some(catalogue));
    let class = classify(text, Lexing::default(), Some(catalogue));
    let ask = Ask {
        class,
        begin: match class.kind {
            Kind::Begin(modes) => Some(modes),
            _ => None,
        },
        needs: matches!(class.kind, Kind::Begin(_)).then_some(Needs::Repeatable),
        read_only_session: false,
        isolation: None,
        unfinished: None,
        leaning: false,
        own: &Own::default(),
        must_see: &MustSee::default(),
        avoid: &[],
        now: tokio::time::Instant::now().into_std(),
    };
    let chosen = route(&ask, policy, view, |_node| 0, Random(0));
    let (word, node) = match chosen.target {
        Target::Primary => ("primary", view.primary),
        Target::Replica(node) => ("replica", Some(node)),
    };
    json!({
        "class": told.class,
        "route": word,
        "node": node.and_then(|node| view.node(node)).map(|node| &*node.name),
        "reason": chosen.reason.name(),
        "detail": told.detail,
        "tables": told.tables,
        "functions": told.functions,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{Sources, load as load_settings};

    fn settings(urls: &[&str]) -> Settings {
        let sources = Sources {
            nodes: urls.iter().map(|url| (*url).to_owned()).collect(),
            ..Sources::default()
        };
        load_settings(&sources, &|_| None).unwrap().settings
    }

    #[test]
    fn only_configured_databases_are_explained() {
        let settings = settings(&["postgres://app:x@h/shop"]);
        assert_eq!(find(&settings, None).unwrap().1, "shop");
        let said = find(&settings, Some("other")).unwrap_err();
        assert_eq!(said, "there is no database \"other\" in the configuration");
    }

    #[test]
    fn the_route_is_that_of_the_nodes_that_answered() {
        let catalogue = CatalogueBuilder::new().finish(0);
        let mut primary = NodeView::new(NodeId(0), "pg1".into());
        primary.role = Role::Primary;
        primary.health = Health::Up;
        let view = View {
            nodes: [primary].into(),
            primary: Some(NodeId(0)),
            epoch: 0,
            epoch_start: None,
            withheld: None,
        };
        let told = decide("delete from t", &catalogue, &Policy::default(), &view);
        assert_eq!(
            (
                &told["class"],
                &told["route"],
                &told["node"],
                &told["reason"]
            ),
            (
                &json!("write"),
                &json!("primary"),
                &json!("pg1"),
                &json!("write")
            )
        );
        let told = decide("select 1", &catalogue, &Policy::default(), &view);
        assert_eq!(
            (&told["route"], &told["reason"]),
            (&json!("primary"), &json!("no_replica"))
        );
    }
}

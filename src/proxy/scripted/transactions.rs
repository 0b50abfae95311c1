//! Any sequence of statements in and out of transactions is answered as one server would answer it,
//! whatever it runs on, and writes the same.

use std::{
    sync::{Arc, Mutex},
    time::Duration,
};

use proptest::prelude::*;

use super::{bed::*, message::*, postgres::Postgres};
use crate::cluster::NodeId;

const CATCH_UP: Duration = Duration::from_millis(60);

const STATEMENTS: &[&str] = &[
    "begin",
    "begin read only",
    "commit",
    "rollback",
    "commit and chain",
    "savepoint a",
    "rollback to a",
    "set transaction read only",
    "select c from t",
    "select c from t",
    "select c / 0 from t",
    "insert into t values (1)",
    "insert into t values (1)",
];

/// What a client sends before it waits.
#[derive(Clone, Debug)]
enum Request {
    Simple(&'static str),
    /// Several statements in one text.
    String(Vec<&'static str>),
    /// Up to one Sync.
    Extended(Vec<&'static str>),
    /// The same with names, which a later one of the client may use again.
    Named(Vec<usize>),
}

fn request() -> impl Strategy<Value = Request> {
    let statement = || proptest::sample::select(STATEMENTS);
    let several = |most| proptest::collection::vec(statement(), 1..=most);
    prop_oneof![
        4 => statement().prop_map(Request::Simple),
        1 => several(3).prop_map(Request::String),
        3 => several(3).prop_map(Request::Extended),
        2 => proptest::collection::vec(0..STATEMENTS.len(), 1..=2).prop_map(Request::Named),
    ]
}

impl Request {
    fn statements(&self) -> Vec<&'static str> {
        match self {
            Self::Simple(statement) => vec![statement],
            Self::String(statements) | Self::Extended(statements) => statements.clone(),
            Self::Named(indices) => indices.iter().map(|index| STATEMENTS[*index]).collect(),
        }
    }

    /// Not so what begins or ends a transaction, or writes, among others inside of one that only
    /// reads: that may be on a replica by then, and pgsplit may refuse to take it elsewhere.
    fn is_plain(&self, reads_only: bool) -> bool {
        let statements = self.statements();
        let begins = |of: &[&str]| of.iter().any(|statement| statement.starts_with("begin"));
        let rest = statements
            .iter()
            .position(|statement| *statement == "begin read only")
            .map_or(&[][..], |at| &statements[at + 1..]);
        let decides = |statement: &&str| {
            ["commit", "rollback", "insert"]
                .iter()
                .any(|word| statement.starts_with(word))
        };
        let goes_on = statements.len() > 1 && statements.iter().any(decides);
        !(reads_only && (begins(&statements) || goes_on)) && !begins(rest)
    }
}

/// One client, and what it would have had from one server.
struct Client {
    end: End,
    directly: Postgres,
    named: Vec<usize>,
}

impl Client {
    fn bytes(&mut self, request: &Request) -> Vec<u8> {
        match request {
            Request::Simple(statement) => query(statement),
            Request::String(statements) => query(&statements.join("; ")),
            Request::Extended(statements) => {
                let each = statements.iter().map(|statement| extended(statement));
                [each.collect::<Vec<_>>().concat(), sync()].concat()
            }
            Request::Named(indices) => {
                let mut bytes = Vec::new();
                for &index in indices {
                    let name = format!("s{index}");
                    // In a request of its own, so that no error takes its name away.
                    if !self.named.contains(&index) && self.named.len() < 4 {
                        bytes.extend(parse(&name, STATEMENTS[index]));
                        bytes.extend(sync());
                    }
                    bytes.extend(bind("", &name));
                    bytes.extend(execute(""));
                }
                bytes.extend(sync());
                bytes
            }
        }
    }
}

/// Serves all connections to a node, each with a session of its own; adds up what they wrote.
fn serve(
    bed: &mut Bed,
    id: NodeId,
    replica: bool,
    written: &Arc<Mutex<Vec<u32>>>,
    first: Option<End>,
) {
    let written = Arc::clone(written);
    let serve = move |mut end: End, logged_in: bool| {
        let written = Arc::clone(&written);
        async move {
            if !logged_in {
                end.log_in().await;
            }
            let mut session = Postgres::new(replica);
            while let Some(bytes) = end.arrived().await {
                let answer = session.answers(&bytes);
                written.lock().unwrap().append(&mut session.written);
                end.send(&answer).await;
            }
        }
    };
    if let Some(first) = first {
        tokio::spawn(serve(first, true));
    }
    let mut dialled = bed.every_connection(id);
    tokio::spawn(async move {
        while let Some(end) = dialled.next().await {
            tokio::spawn(serve(end, false));
        }
    });
}

async fn play(steps: Vec<(usize, Request, bool)>) {
    let (mut bed, primary) = Bed::start(&[]).await;
    let written = Arc::default();
    serve(&mut bed, PG1, false, &written, Some(primary));
    serve(&mut bed, PG2, true, &written, None);
    let mut clients = Vec::new();
    for _ in 0..2 {
        clients.push(Client {
            end: bed.client().await,
            directly: Postgres::new(false),
            named: Vec::new(),
        });
    }
    let mut lsn = 0x0100_0000;
    for (who, request, caught_up) in steps {
        if caught_up {
            lsn += 0x100;
            bed.probed(PG1, false, lsn);
            bed.probed(PG2, true, lsn);
        }
        let client = &mut clients[who];
        // pgsplit itself acknowledges the Parse of a text that the server has already, also in a
        // failed transaction.
        let names = matches!(request, Request::Named(_)) && client.directly.has_failed();
        if names || !request.is_plain(client.directly.reads_only()) {
            continue;
        }
        let bytes = client.bytes(&request);
        let expected = client.directly.answers(&bytes);
        client.end.send(&bytes).await;
        // Now and then a read waits a little for a replica.
        client.end.expect_within(CATCH_UP, &expected).await;
        client.end.quiet().await;
        if let Request::Named(indices) = request {
            for index in indices {
                if expected.starts_with(&parsed()) {
                    client.named.push(index);
                }
            }
        }
    }
    let directly: usize = clients
        .iter()
        .map(|client| client.directly.written.len())
        .sum();
    assert_eq!(written.lock().unwrap().len(), directly);
}

fn plays(steps: Vec<(usize, Request, bool)>) {
    tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .start_paused(true)
        .build()
        .unwrap()
        .block_on(play(steps));
}

#[test]
fn a_chained_transaction_has_the_modes_that_were_set() {
    let statements = [
        "begin",
        "set transaction read only",
        "commit and chain",
        "insert into t values (1)",
    ];
    plays(
        statements
            .map(|text| (1, Request::Simple(text), false))
            .into(),
    );
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(500))]

    #[test]
    fn transactions_are_what_they_are_on_one_server(
        steps in proptest::collection::vec((0..2_usize, request(), any::<bool>()), 1..25),
    ) {
        plays(steps);
    }
}

use std::time::Duration;

use tokio::io::{AsyncReadExt as _, DuplexStream};

use super::*;
use crate::net::{Inbox, Stream};

fn user(name: &str, password: Option<&str>) -> User {
    User {
        name: name.to_owned(),
        password: password.map(|text| Secret(text.to_owned())),
        server_user: None,
        server_password: None,
        routing: crate::config::Overrides::default(),
        password_file: None,
    }
}

/// With a text password, a verifier (for "pencil"), an md5 hash (of "secret"), and none.
fn users() -> Vec<User> {
    vec![
        user("app", Some("s3cr\u{e9}t")),
        user(
            "verified",
            Some(
                "SCRAM-SHA-256$4096:W22ZaJ0SNY7soEsUEjb6gQ==$\
                     WG5d8oPm3OtcPnkdi4Uo7BkeZkBFzpcXkuLmtbsT4qY=:\
                     wfPLwcE6nTWhTAmQ7tl2KeoiWGPlZqQxSrmfPwDl2dU=",
            ),
        ),
        user("old", Some("md57cb133e596658708079ed4cfaaf64462")),
        user("nobody", None),
    ]
}

fn login(user: &str) -> (Login, DuplexStream) {
    let (here, there) = tokio::io::duplex(4096);
    let login = Login {
        stream: Stream::memory(here),
        inbox: Inbox::default(),
        user: user.into(),
        database: "app".into(),
        parameters: Vec::new(),
        replication: None,
        minor: 0,
    };
    (login, there)
}

fn soon() -> Instant {
    Instant::now() + Duration::from_secs(15)
}

async fn message(there: &mut DuplexStream) -> (u8, Vec<u8>) {
    let mut header = [0; 5];
    there.read_exact(&mut header).await.unwrap();
    let length = u32::from_be_bytes(header[1..].try_into().unwrap());
    let mut body = vec![0; length as usize - 4];
    there.read_exact(&mut body).await.unwrap();
    (header[0], body)
}

/// Logs in as a driver does.
async fn drive(
    authenticator: &Authenticator,
    user: &str,
    password: &str,
) -> (Result<Identity, HandshakeError>, Result<(), String>) {
    let (mut login, mut there) = login(user);
    let mut config = tokio_postgres::Config::new();
    config.user(user).password(password);
    let client = async {
        // Its startup packet has been read already, as it were.
        let (mut here, pipe) = tokio::io::duplex(4096);
        let connect = config.connect_raw(pipe, tokio_postgres::NoTls);
        let relay = async {
            let mut length = [0; 4];
            here.read_exact(&mut length).await?;
            let mut startup = vec![0; u32::from_be_bytes(length) as usize - 4];
            here.read_exact(&mut startup).await?;
            tokio::io::copy_bidirectional(&mut here, &mut there).await
        };
        tokio::select! {
            connected = connect => connected.map(drop).map_err(|error| {
                let error = error.as_db_error().map(|e| (e.code().code(), e.message()));
                format!("{error:?}")
            }),
            relayed = relay => panic!("{relayed:?}"),
        }
    };
    let server = async {
        let identity = authenticator.authenticate(&mut login, soon()).await?;
        let rest = b"R\0\0\0\x08\0\0\0\0Z\0\0\0\x05I";
        let tail = [&identity.unsent[..], rest].concat();
        login.stream.write_all(&tail).await.unwrap();
        login.stream.flush().await.unwrap();
        Ok((identity, login))
    };
    let (server, client) = tokio::join!(server, client);
    (server.map(|(identity, _login)| identity), client)
}

#[tokio::test]
async fn drivers_get_in_with_the_right_password() {
    let authenticator = Authenticator::new(&users(), false, None).unwrap();
    for (user, password, method) in [
        ("app", "s3cr\u{e9}t", Method::Scram),
        ("verified", "pencil", Method::Scram),
        ("old", "secret", Method::Md5),
    ] {
        let (identity, client) = drive(&authenticator, user, password).await;
        assert_eq!(client, Ok(()), "{user}");
        assert_eq!(identity.unwrap().method, method);
    }
}

#[tokio::test]
async fn a_wrong_password_an_unknown_user_and_one_without_a_password_look_alike() {
    let authenticator = Authenticator::new(&users(), false, None).unwrap();
    for (user, password) in [
        ("app", "wrong"),
        ("verified", ""),
        ("old", "wrong"),
        ("nobody", ""),
        ("ghost", "x"),
    ] {
        let (identity, client) = drive(&authenticator, user, password).await;
        assert!(
            matches!(identity, Err(HandshakeError::Refused(_))),
            "{identity:?}"
        );
        let message = format!("password authentication failed for user \"{user}\"");
        assert_eq!(
            client,
            Err(format!("{:?}", Some(("28P01", message.as_str()))))
        );
    }
}

#[tokio::test]
async fn a_proof_shows_the_key_that_logs_in_at_the_nodes() {
    let authenticator = Authenticator::new(&users(), false, None).unwrap();
    let (identity, _) = drive(&authenticator, "verified", "pencil").await;
    assert!(
        format!("{identity:?}").starts_with("Ok(Identity(Scram, …)"),
        "not printed"
    );
    let salt = BASE64.decode("W22ZaJ0SNY7soEsUEjb6gQ==").unwrap();
    let keys = Keys::derive("pencil", &salt, scram::ITERATIONS);
    assert_eq!(identity.unwrap().client_key, Some(keys.client_key));
}

/// The salt and rounds that a user is challenged with.
async fn challenge(authenticator: &Authenticator, user: &str) -> String {
    let (mut login, mut there) = login(user);
    let ask = async {
        assert_eq!(
            message(&mut there).await,
            (b'R', b"\0\0\0\x0ASCRAM-SHA-256\0\0".to_vec())
        );
        let mut first = Vec::new();
        authentication::write_sasl_initial_response(&mut first, "SCRAM-SHA-256", "n,,n=,r=abc");
        there.write_all(&first).await.unwrap();
        let (_, body) = message(&mut there).await;
        drop(there);
        String::from_utf8(body)
            .unwrap()
            .split_once(",s=")
            .unwrap()
            .1
            .to_owned()
    };
    let (result, challenge) = tokio::join!(authenticator.authenticate(&mut login, soon()), ask);
    assert!(matches!(result, Err(HandshakeError::Closed)), "{result:?}");
    challenge
}

#[tokio::test]
async fn salts_tell_nothing_about_who_exists() {
    let before = Authenticator::new(&users(), false, None).unwrap();
    let reloaded = Authenticator::new(&users(), false, Some(&before)).unwrap();
    for user in ["app", "verified", "nobody", "ghost"] {
        let first = challenge(&before, user).await;
        assert_eq!(first, challenge(&before, user).await, "the same each time");
        assert_eq!(
            first,
            challenge(&reloaded, user).await,
            "also after a reload"
        );
        assert_eq!(first.len(), "W22ZaJ0SNY7soEsUEjb6gQ==,i=4096".len());
    }
    assert_ne!(
        challenge(&before, "ghost").await,
        challenge(&before, "spook").await
    );
    let other = Authenticator::new(&users(), false, None).unwrap();
    assert_ne!(
        challenge(&before, "ghost").await,
        challenge(&other, "ghost").await
    );
}

#[tokio::test]
async fn who_does_not_exist_looks_like_the_others() {
    let old = [user("old", Some("md57cb133e596658708079ed4cfaaf64462"))];
    let authenticator = Authenticator::new(&old, false, None).unwrap();
    let (mut login, mut there) = login("ghost");
    let check = authenticator.authenticate(&mut login, soon());
    let (_, (tag, body)) = tokio::join!(async { assert!(check.await.is_err()) }, async {
        let asked = message(&mut there).await;
        drop(there);
        asked
    });
    assert_eq!((tag, &body[..4]), (b'R', &[0, 0, 0, 5][..]));

    let slow = "SCRAM-SHA-256$100000:W22ZaJ0SNY7soEsUEjb6gQ==$\
                    WG5d8oPm3OtcPnkdi4Uo7BkeZkBFzpcXkuLmtbsT4qY=:\
                    wfPLwcE6nTWhTAmQ7tl2KeoiWGPlZqQxSrmfPwDl2dU=";
    let authenticator = Authenticator::new(&[user("slow", Some(slow))], false, None).unwrap();
    assert!(
        challenge(&authenticator, "ghost")
            .await
            .ends_with(",i=100000")
    );
}

#[tokio::test]
async fn a_new_password_counts_after_a_reload() {
    let before = Authenticator::new(&[user("app", Some("old"))], false, None).unwrap();
    let after = Authenticator::new(&[user("app", Some("new"))], false, Some(&before)).unwrap();
    assert!(drive(&after, "app", "old").await.1.is_err());
    assert!(drive(&after, "app", "new").await.1.is_ok());
}

#[tokio::test]
async fn broken_answers_are_protocol_errors() {
    let authenticator = Authenticator::new(&users(), false, None).unwrap();
    let initial = |mechanism: &str, data: &str| {
        let mut out = Vec::new();
        authentication::write_sasl_initial_response(&mut out, mechanism, data);
        out
    };
    let long = "x".repeat(MAX_SASL_MESSAGE);
    for (answer, expected) in [
        (
            b"Q\0\0\0\x05\0".to_vec(),
            "expected SASL or password response, got message type \"Q\"",
        ),
        (
            b"p\0\0\0\x03".to_vec(),
            "invalid length 3 of a message of type \"p\"",
        ),
        (
            b"p\0\0\0\x05\0".to_vec(),
            "malformed authentication message",
        ),
        (
            initial("SCRAM-SHA-1", "n,,n=,r=abc"),
            "client selected an invalid SASL authentication mechanism",
        ),
        // Not offered: there is no TLS.
        (
            initial("SCRAM-SHA-256-PLUS", "n,,n=,r=abc"),
            "client selected an invalid SASL authentication mechanism",
        ),
        (
            initial("SCRAM-SHA-256", "hello"),
            "malformed SCRAM message (no comma)",
        ),
        (
            initial("SCRAM-SHA-256", &long),
            "invalid length 1046 of a message of type \"p\"",
        ),
    ] {
        let (mut login, mut there) = login("app");
        let ask = async {
            let _request = message(&mut there).await;
            there.write_all(&answer).await.unwrap();
            String::from_utf8_lossy(&message(&mut there).await.1).into_owned()
        };
        let (result, told) = tokio::join!(authenticator.authenticate(&mut login, soon()), ask);
        assert!(
            matches!(result, Err(HandshakeError::Refused(_))),
            "{result:?}"
        );
        assert_eq!(told, format!("SFATAL\0VFATAL\0C08P01\0M{expected}\0\0"));
    }
}

#[tokio::test(start_paused = true)]
async fn a_client_that_does_not_answer_is_told_so_at_the_deadline() {
    let users = [user("old", Some("md57cb133e596658708079ed4cfaaf64462"))];
    let authenticator = Authenticator::new(&users, false, None).unwrap();
    let (mut login, mut there) = login("old");
    let start = Instant::now();
    let result = authenticator.authenticate(&mut login, soon()).await;
    assert!(
        matches!(result, Err(HandshakeError::TimedOut)),
        "{result:?}"
    );
    assert_eq!(start.elapsed(), Duration::from_secs(15));
    let _request = message(&mut there).await;
    let (tag, body) = message(&mut there).await;
    assert_eq!(tag, b'E');
    assert_eq!(
        body,
        b"SFATAL\0VFATAL\0C57014\0Mcanceling authentication due to timeout\0\0"
    );
}

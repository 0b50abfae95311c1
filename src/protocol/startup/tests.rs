use proptest::prelude::*;

use super::*;

fn packet(version: u32, pairs: &[(&[u8], &[u8])]) -> Vec<u8> {
    let mut packet = vec![0; 4];
    packet.extend_from_slice(&version.to_be_bytes());
    for (name, value) in pairs {
        packet.extend([name, &b"\0"[..], value, b"\0"].concat());
    }
    packet.push(0);
    finish(packet).unwrap()
}

fn startup(pairs: &[(&str, &str)]) -> Result<Startup, StartupError> {
    let pairs: Vec<_> = pairs
        .iter()
        .map(|(n, v)| (n.as_bytes(), v.as_bytes()))
        .collect();
    match parse(&packet(PROTOCOL_3_0, &pairs))? {
        Packet::Startup(startup) => Ok(startup),
        other => panic!("{other:?}"),
    }
}

fn options(text: &str) -> Result<Vec<(String, String)>, StartupError> {
    let startup = startup(&[("user", "u"), ("options", text)])?;
    Ok(startup
        .parameters
        .iter()
        .map(|(n, v)| (n.to_string(), v.to_string()))
        .collect())
}

#[test]
fn a_startup_packet_gives_user_database_and_settings() {
    let startup = startup(&[
        ("user", "app"),
        ("database", "shop"),
        ("application_name", "caf\u{e9}"),
        ("options", "-c search_path=a -c work_mem=1MB"),
        ("Search_Path", "b"),
    ])
    .unwrap();
    assert_eq!((&*startup.user, &*startup.database), ("app", "shop"));
    assert_eq!(
        (startup.minor, startup.replication, startup.negotiation),
        (0, None, None)
    );
    let expected = [
        ("search_path", "b"),
        ("work_mem", "1MB"),
        ("application_name", "caf??"),
    ];
    assert_eq!(
        startup.parameters,
        expected.map(|(name, value)| (Box::from(name), Box::from(value)))
    );
}

#[test]
fn the_database_is_the_users_name_unless_given_and_long_names_are_cut() {
    let database = |pairs: &[(&str, &str)]| startup(pairs).unwrap().database;
    assert_eq!(&*database(&[("user", "app")]), "app");
    assert_eq!(&*database(&[("user", "app"), ("database", "")]), "app");
    assert_eq!(database(&[("user", &"x".repeat(64))]).len(), 63);
    // 62 bytes and a character of two.
    assert_eq!(
        database(&[("user", &("x".repeat(62) + "\u{e9}"))]).len(),
        62
    );
}

#[test]
fn options_are_split_as_postgresql_splits_them() {
    for (text, expected) in [
        ("", vec![]),
        ("  \t\n", vec![]),
        ("-c a=b", vec![("a", "b")]),
        (
            "-e -fs -f n -S 64 -S128",
            vec![
                ("datestyle", "euro"),
                ("enable_seqscan", "false"),
                ("enable_nestloop", "false"),
                ("work_mem", "128"),
            ],
        ),
        ("-ca=b", vec![("a", "b")]),
        ("--a=b", vec![("a", "b")]),
        ("--a-b=c-d", vec![("a_b", "c-d")]),
        ("-c\na=b\u{b}--c=d", vec![("a", "b"), ("c", "d")]),
        (r"-c a=b\ c", vec![("a", "b c")]),
        (r"-c a=b\\c", vec![("a", r"b\c")]),
        (r"-c a=\", vec![("a", "")]),
        (r#"-c a="b"#, vec![("a", "\"b")]),
        ("-c a=", vec![("a", "")]),
        ("-c a=b=c", vec![("a", "b=c")]),
        ("-c a=1 -c a=2", vec![("a", "2")]),
        (
            "-c pgsplit.route=primary",
            vec![("pgsplit.route", "primary")],
        ),
    ] {
        let expected: Vec<_> = expected
            .into_iter()
            .map(|(n, v)| (n.to_owned(), v.to_owned()))
            .collect();
        assert_eq!(options(text).unwrap(), expected, "{text}");
    }
}

#[test]
fn options_that_no_server_process_takes_are_refused() {
    for (text, message) in [
        (
            "a=b",
            "invalid command-line argument for server process: a=b",
        ),
        (
            "-e1",
            "invalid command-line argument for server process: -e1",
        ),
        (
            "-fx",
            "invalid command-line argument for server process: -fx",
        ),
        ("-S", "invalid command-line argument for server process: -S"),
        ("-F", "invalid command-line argument for server process: -F"),
        ("-c", "-c requires a value"),
        ("-c a", "-c a requires a value"),
        ("--a", "--a requires a value"),
        ("-c =b", "-c =b requires a value"),
    ] {
        let error = options(text).unwrap_err();
        assert_eq!(
            (error.to_string().as_str(), error.sqlstate()),
            (message, SqlState::SYNTAX_ERROR)
        );
    }
}

#[test]
fn packets_are_refused_as_postgresql_refuses_them() {
    let user = (&b"user"[..], &b"u"[..]);
    let unterminated = {
        let mut packet = packet(PROTOCOL_3_0, &[user]);
        packet.pop();
        packet
    };
    let trailing = [&packet(PROTOCOL_3_0, &[user])[..], b"x\0"].concat();
    for (packet, message, code) in [
        (vec![], "invalid length of startup packet", "08P01"),
        (
            unterminated,
            "invalid startup packet layout: expected terminator as last byte",
            "08P01",
        ),
        (
            trailing,
            "invalid startup packet layout: expected terminator as last byte",
            "08P01",
        ),
        (
            packet(PROTOCOL_3_0, &[]),
            "no PostgreSQL user name specified in startup packet",
            "28000",
        ),
        (
            packet(PROTOCOL_3_0, &[(b"user", b"")]),
            "no PostgreSQL user name specified in startup packet",
            "28000",
        ),
        (
            packet(2 << 16, &[user]),
            "unsupported frontend protocol 2.0: server supports 3.0 to 3.2",
            "0A000",
        ),
        (
            packet(4 << 16 | 1, &[user]),
            "unsupported frontend protocol 4.1: server supports 3.0 to 3.2",
            "0A000",
        ),
        (
            packet(PROTOCOL_3_0, &[(b"user", b"\xFF")]),
            "invalid UTF-8 in startup packet (user)",
            "22021",
        ),
        (
            packet(PROTOCOL_3_0, &[user, (b"replication", b"maybe")]),
            "invalid value for parameter \"replication\": \"maybe\"",
            "22023",
        ),
        (
            packet(CANCEL_REQUEST, &[]),
            "invalid length of cancel request",
            "08P01",
        ),
    ] {
        let error = parse(&packet).unwrap_err();
        assert_eq!(
            (error.to_string().as_str(), error.sqlstate().as_str()),
            (message, code)
        );
    }
}

#[test]
fn settings_are_bounded() {
    let names: Vec<String> = (0..=MAX_PARAMETERS).map(|i| format!("s{i}")).collect();
    let mut pairs = vec![("user", "u")];
    pairs.extend(names.iter().map(|name| (name.as_str(), "1")));
    assert_eq!(startup(&pairs), Err(StartupError::TooMany));
    pairs.pop();
    assert_eq!(startup(&pairs).unwrap().parameters.len(), MAX_PARAMETERS);
}

#[test]
fn replication_is_a_boolean_or_database() {
    for (value, expected) in [
        ("true", Some("true")),
        ("T", Some("T")),
        ("on", Some("on")),
        ("1", Some("1")),
        ("database", Some("database")),
        ("false", None),
        ("of", None),
        ("0", None),
        ("no", None),
    ] {
        let startup = startup(&[("user", "u"), ("replication", value)]).unwrap();
        assert_eq!(startup.replication.as_deref(), expected, "{value}");
    }
    for value in ["", "o", "2", "Database", "truee"] {
        assert!(
            startup(&[("user", "u"), ("replication", value)]).is_err(),
            "{value}"
        );
    }
}

#[test]
fn what_is_newer_than_we_know_is_negotiated() {
    let user = (&b"user"[..], &b"u"[..]);
    let parse = |version, pairs: &[_]| match parse(&packet(version, pairs)).unwrap() {
        Packet::Startup(startup) => (startup.minor, startup.negotiation),
        other => panic!("{other:?}"),
    };
    let v3 = |minor: u32| PROTOCOL_3_0 | minor;
    assert_eq!(parse(v3(0), &[user]), (0, None));
    assert_eq!(parse(v3(1), &[user]), (0, None));
    assert_eq!(parse(v3(2), &[user]), (2, None));
    let answer = |rest: &[u8]| Some([b"v\0\0\0", rest].concat());
    assert_eq!(
        parse(v3(9999), &[user]),
        (2, answer(b"\x0C\0\x03\0\x02\0\0\0\0"))
    );
    assert_eq!(
        parse(v3(0), &[user, (b"_pq_.x", b"1")]),
        (0, answer(b"\x13\0\x03\0\0\0\0\0\x01_pq_.x\0"))
    );
}

#[test]
fn lengths_are_bounded() {
    assert_eq!(length(b"\0\0\0"), Ok(None));
    assert_eq!(length(b"\0\0\0\x08"), Ok(Some(8)));
    assert_eq!(length(b"\0\0\0\x07"), Err(StartupError::Length));
    assert_eq!(length(&10_000u32.to_be_bytes()), Ok(Some(10_000)));
    assert_eq!(length(&10_001u32.to_be_bytes()), Err(StartupError::Length));
    assert_eq!(length(b"GET / HTTP/1.1"), Err(StartupError::Length));
}

#[test]
fn what_does_not_fit_a_startup_packet_is_not_sent() {
    assert!(startup_message([("user", "a\0b")]).is_none());
    assert!(startup_message([("", "a")]).is_none());
    assert!(startup_message([("user", "x".repeat(10_000).as_str())]).is_none());
}

proptest! {
    #[test]
    fn what_we_write_we_read(
        user in "[^\0]{1,20}",
        database in "[^\0]{1,20}",
        parameters in proptest::collection::btree_map("[a-z]{1,5}_x", "[^\0]{0,10}", 0..5),
    ) {
        let mut pairs = vec![("user", user.as_str()), ("database", &database)];
        pairs.extend(parameters.iter().map(|(n, v)| (n.as_str(), v.as_str())));
        let message = startup_message(pairs).unwrap();
        prop_assert_eq!(length(&message), Ok(Some(message.len())));
        let Packet::Startup(startup) = parse(&message).unwrap() else { panic!() };
        prop_assert_eq!(&*startup.user, cut(&user));
        prop_assert_eq!(&*startup.database, cut(&database));
        let read = startup.parameters.iter().map(|(n, v)| (n.to_string(), v.to_string()));
        prop_assert!(read.eq(parameters));
    }

    #[test]
    fn a_cancel_request_comes_back(pid: u32, key in proptest::collection::vec(any::<u8>(), 4..=256)) {
        let key = CancelKey { pid, key: key.into() };
        let packet = cancel_request(&key).unwrap();
        prop_assert_eq!(length(&packet), Ok(Some(packet.len())));
        prop_assert_eq!(parse(&packet), Ok(Packet::Cancel(key)));
    }

    #[test]
    fn no_bytes_panic(bytes: Vec<u8>, version in 0u32..4) {
        let _length = length(&bytes);
        let _packet = parse(&bytes);
        let _packet = parse(&[&[0; 4], &(version << 16).to_be_bytes()[..], &bytes].concat());
    }

    #[test]
    fn no_options_panic(text in "[-c=a \\\\\u{e9}]{0,20}") {
        let _settings = split_options(&text);
    }
}

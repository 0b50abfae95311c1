use proptest::prelude::*;

use super::*;

const CLIENT_NONCE: &str = "rOprNGfwEbeRWgbNEkqO";
const SERVER_NONCE: &str = "%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0";
const SERVER_FIRST: &str = "r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0,\
                                s=W22ZaJ0SNY7soEsUEjb6gQ==,i=4096";
const CLIENT_FINAL: &str = "c=biws,r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0,\
                                p=dHzbZapWIk4jUhN+Ute9ytag9zjfMHgsqmmiz7AndVQ=";
const SERVER_FINAL: &str = "v=6rriTRBi23WpRR/wtup+mMhUZUn/dB5nLTJRsjl95G4=";

fn pencil() -> (Keys, Verifier) {
    let salt = BASE64.decode("W22ZaJ0SNY7soEsUEjb6gQ==").unwrap();
    let keys = Keys::derive("pencil", &salt, ITERATIONS);
    let verifier = keys.verifier(&salt, ITERATIONS);
    (keys, verifier)
}

/// Few rounds: for tests of the exchange rather than of the derivation.
fn quick(password: &str) -> (Keys, Verifier) {
    let iterations = NonZeroU32::new(2).unwrap();
    let keys = Keys::derive(password, b"salt", iterations);
    (keys, keys.verifier(b"salt", iterations))
}

#[test]
fn the_server_agrees_with_rfc_7677() {
    let (keys, verifier) = pencil();
    let first = format!("n,,n=user,r={CLIENT_NONCE}");
    let (exchange, server_first) =
        Exchange::start(first.as_bytes(), false, None, SERVER_NONCE, &verifier).unwrap();
    assert_eq!(server_first, SERVER_FIRST);
    let proven = exchange.finish(CLIENT_FINAL.as_bytes()).unwrap();
    assert_eq!(proven.server_final, SERVER_FINAL);
    assert!(proven.keys == keys);
}

#[test]
fn the_client_agrees_with_rfc_7677() {
    let (unproven, _) = CLIENT_FINAL.rsplit_once(",p=").unwrap();
    let challenge = Challenge {
        salt: Box::default(),
        iterations: ITERATIONS,
        unproven: unproven.to_owned(),
        message: format!("n=user,r={CLIENT_NONCE},{SERVER_FIRST},{unproven}"),
    };
    let (answered, client_final) = challenge.answer(&pencil().0);
    assert_eq!(client_final, CLIENT_FINAL);
    answered.verify(SERVER_FINAL.as_bytes()).unwrap();
}

#[test]
fn a_verifier_of_postgresql_is_read_and_written_unchanged() {
    // Made by PostgreSQL 15 for the password "pencil".
    let text = "SCRAM-SHA-256$4096:W22ZaJ0SNY7soEsUEjb6gQ==$\
                    WG5d8oPm3OtcPnkdi4Uo7BkeZkBFzpcXkuLmtbsT4qY=:\
                    wfPLwcE6nTWhTAmQ7tl2KeoiWGPlZqQxSrmfPwDl2dU=";
    let verifier: Verifier = text.parse().unwrap();
    assert_eq!(verifier.to_string(), text);
    assert_eq!(verifier, pencil().1);
    for invalid in [
        "",
        "pencil",
        "md5aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa",
        "SCRAM-SHA-256$0:c2FsdA==$WG5d8oPm3OtcPnkdi4Uo7BkeZkBFzpcXkuLmtbsT4qY=:WG5d8oPm3OtcPnkdi4Uo7BkeZkBFzpcXkuLmtbsT4qY=",
        "SCRAM-SHA-256$4096:c2FsdA==$c2FsdA==:WG5d8oPm3OtcPnkdi4Uo7BkeZkBFzpcXkuLmtbsT4qY=",
        "SCRAM-SHA-256$4096:$WG5d8oPm3OtcPnkdi4Uo7BkeZkBFzpcXkuLmtbsT4qY=:WG5d8oPm3OtcPnkdi4Uo7BkeZkBFzpcXkuLmtbsT4qY=",
    ] {
        assert_eq!(
            invalid.parse::<Verifier>(),
            Err(InvalidVerifier),
            "{invalid}"
        );
    }
}

#[test]
fn secrets_are_not_printed() {
    let (keys, verifier) = quick("pencil");
    assert_eq!(format!("{keys:?} {verifier:?}"), "Keys(…) Verifier(…)");
}

#[test]
fn passwords_are_prepared_where_possible() {
    // RFC 4013, section 3; the last is prohibited and stays as it is.
    for (password, prepared) in [
        ("I\u{AD}X", "IX"),
        ("user", "user"),
        ("USER", "USER"),
        ("\u{AA}", "a"),
        ("\u{2168}", "IX"),
        ("a\u{A0}b", "a b"),
        ("\u{7}", "\u{7}"),
    ] {
        assert_eq!(normalized(password), prepared);
    }
}

#[test]
fn what_postgresql_refuses_as_client_first_is_refused() {
    use ScramError as E;
    let hash: Option<&[u8]> = Some(b"hash");
    let (_, verifier) = quick("pencil");
    for (message, plus, end_point, expected) in [
        ("", false, None, E::Malformed("no comma")),
        (
            "n,,n=,r=",
            false,
            None,
            E::Malformed("non-printable characters in nonce"),
        ),
        (
            "n,,n=,r=a b",
            false,
            None,
            E::Malformed("non-printable characters in nonce"),
        ),
        (
            "n,,r=abc",
            false,
            None,
            E::Malformed("missing or misplaced attribute"),
        ),
        (
            "n,,n=",
            false,
            None,
            E::Malformed("missing or misplaced attribute"),
        ),
        (
            "n,,n=,r=abc,",
            false,
            None,
            E::Malformed("unexpected attribute in client-first"),
        ),
        ("n,,n=,r=a\0bc", false, None, E::Malformed("not printable")),
        ("n,a=other,n=,r=abc", false, None, E::AuthorizationIdentity),
        (
            "n,b=other,n=,r=abc",
            false,
            None,
            E::Malformed("unexpected attribute in client-first"),
        ),
        ("n,,m=ext,n=,r=abc", false, None, E::Extension),
        (
            "x,,n=,r=abc",
            false,
            None,
            E::Malformed("unexpected channel-binding flag"),
        ),
        (
            "p=tls-server-end-point,,n=,r=abc",
            false,
            hash,
            E::Malformed("unexpected channel-binding flag"),
        ),
        ("p=tls-unique,,n=,r=abc", true, hash, E::BindingType),
        (
            "n,,n=,r=abc",
            true,
            hash,
            E::Malformed("no channel binding data"),
        ),
        (
            "y,,n=,r=abc",
            true,
            hash,
            E::Malformed("no channel binding data"),
        ),
        ("y,,n=,r=abc", false, hash, E::Downgrade),
    ] {
        let result = Exchange::start(message.as_bytes(), plus, end_point, "xyz", &verifier);
        assert_eq!(result.map(drop), Err(expected), "{message}");
    }
    for message in ["n,,n=,r=abc", "y,,n=anyone,r=abc,e=xt"] {
        Exchange::start(message.as_bytes(), false, None, "xyz", &verifier).unwrap();
    }
}

#[test]
fn what_is_not_an_answer_to_the_challenge_is_refused() {
    use ScramError as E;
    let (_, verifier) = quick("pencil");
    let proof = BASE64.encode([0; 32]);
    for (message, expected) in [
        ("c=biws,r=abcxyz".to_owned(), E::Malformed("no proof")),
        (format!("c=biws,r=abcxyz,p={proof}"), E::Proof),
        (format!("c=eSws,r=abcxyz,p={proof}"), E::Header),
        (format!("c=biws,r=abcxy,p={proof}"), E::Nonce),
        (format!("c=biws,r=abcxyzz,p={proof}"), E::Nonce),
        (
            "c=biws,r=abcxyz,p=AAAA".to_owned(),
            E::Malformed("invalid proof"),
        ),
        (
            format!("r=abcxyz,c=biws,p={proof}"),
            E::Malformed("missing or misplaced attribute"),
        ),
    ] {
        let (exchange, _) = Exchange::start(b"n,,n=,r=abc", false, None, "xyz", &verifier).unwrap();
        assert_eq!(
            exchange.finish(message.as_bytes()).map(drop),
            Err(expected),
            "{message}"
        );
    }
}

#[test]
fn what_is_not_an_answer_to_client_first_is_refused() {
    use ScramError as E;
    for (message, expected) in [
        ("", E::Malformed("missing or misplaced attribute")),
        ("r=abc,s=c2FsdA==,i=4096", E::Nonce),
        ("r=xyzabc,s=c2FsdA==,i=4096", E::Nonce),
        ("r=abcxyz,s=,i=4096", E::Malformed("invalid salt")),
        ("r=abcxyz,s=*,i=4096", E::Malformed("invalid salt")),
        (
            "r=abcxyz,s=c2FsdA==,i=0",
            E::Malformed("invalid iteration count"),
        ),
        (
            "r=abcxyz,s=c2FsdA==,i=-1",
            E::Malformed("invalid iteration count"),
        ),
        ("r=abcxyz,s=c2FsdA==,i=2000001", E::Iterations),
        (
            "m=ext,r=abcxyz,s=c2FsdA==,i=1",
            E::Malformed("missing or misplaced attribute"),
        ),
    ] {
        let client = Client::new("abc".to_owned(), Binding::Unsupported);
        let result = client.challenge(message.as_bytes());
        assert_eq!(result.map(drop), Err(expected), "{message}");
    }
}

proptest! {
    #[test]
    fn only_the_right_password_on_the_same_certificate_gets_in(
        password in ".{0,20}",
        other in ".{0,20}",
        certificate in any::<Option<[u8; 32]>>(),
        relayed: bool,
        offered: bool,
    ) {
        let (keys, verifier) = quick(&password);
        let tried = quick(&other).0;
        let hash = certificate.as_ref().map(|hash| &hash[..]);
        let theirs: Option<&[u8]> = if relayed { hash.map(|_| &b"another"[..]) } else { hash };
        let plus = hash.is_some() && offered;
        let binding = match theirs {
            Some(hash) if offered => Binding::EndPoint(hash),
            Some(_) => Binding::NotOffered,
            None => Binding::Unsupported,
        };
        for (keys, right) in [(keys, true), (tried, tried == keys)] {
            let client = Client::new("abc".to_owned(), binding);
            let start =
                Exchange::start(client.message().as_bytes(), plus, hash, "xyz", &verifier);
            // It was offered: whoever cut it out is in between.
            if binding == Binding::NotOffered {
                prop_assert_eq!(start.map(drop), Err(ScramError::Downgrade));
                continue;
            }
            let (exchange, server_first) = start.unwrap();
            let challenge = client.challenge(server_first.as_bytes()).unwrap();
            prop_assert_eq!(&challenge.salt, &verifier.salt);
            prop_assert_eq!(challenge.iterations, verifier.iterations);
            let (answered, client_final) = challenge.answer(&keys);
            match exchange.finish(client_final.as_bytes()) {
                Ok(proven) => {
                    prop_assert!(right && (!plus || !relayed));
                    prop_assert!(proven.keys == keys);
                    answered.verify(proven.server_final.as_bytes()).unwrap();
                }
                Err(ScramError::Binding) => prop_assert!(plus && relayed),
                Err(error) => {
                    prop_assert_eq!(error, ScramError::Proof);
                    prop_assert!(!right);
                }
            }
        }
    }

    #[test]
    fn a_server_that_does_not_know_the_verifier_is_found_out(signature: [u8; 32]) {
        let (keys, _) = quick("pencil");
        let client = Client::new("abc".to_owned(), Binding::Unsupported);
        let (answered, _) = client.challenge(b"r=abcxyz,s=c2FsdA==,i=2").unwrap().answer(&keys);
        let message = format!("v={}", BASE64.encode(signature));
        prop_assert_eq!(answered.verify(message.as_bytes()), Err(ScramError::ServerSignature));
    }

    #[test]
    fn no_bytes_panic(bytes: Vec<u8>, plus: bool) {
        let (_, verifier) = quick("pencil");
        let _result = Exchange::start(&bytes, plus, Some(b"hash"), "xyz", &verifier);
        let (exchange, _) =
            Exchange::start(b"n,,n=,r=abc", false, None, "xyz", &verifier).unwrap();
        prop_assert!(exchange.finish(&bytes).is_err());
        let client = Client::new("abc".to_owned(), Binding::Unsupported);
        let _result = client.challenge(&bytes);
    }
}

//! A small blocking client: logs in with SCRAM, runs a query, moves bulk data.
//!
//! It is here so that a login costs the client next to nothing (the salted password is computed
//! once) and that data is counted rather than kept.

use std::{
    collections::HashMap,
    io::{Read, Write},
    net::TcpStream,
    num::NonZeroU32,
    sync::Mutex,
    time::Duration,
};

use base64::{Engine, prelude::BASE64_STANDARD as BASE64};
use ring::{
    digest, hmac, pbkdf2,
    rand::{SecureRandom, SystemRandom},
};

use super::Result;

/// Salt and rounds of a salted password.
type SaltKey = (Vec<u8>, u32);

/// Who logs in, with the salted passwords met so far.
#[derive(Debug)]
pub(crate) struct Login {
    pub(crate) user: String,
    pub(crate) password: String,
    salted: Mutex<HashMap<SaltKey, [u8; 32]>>,
}

impl Login {
    pub(crate) fn new(user: &str, password: &str) -> Self {
        Self {
            user: user.to_owned(),
            password: password.to_owned(),
            salted: Mutex::new(HashMap::new()),
        }
    }

    fn salted_password(&self, salt: &[u8], rounds: u32) -> Result<[u8; 32]> {
        let mut known = self.salted.lock().map_err(|e| e.to_string())?;
        if let Some(found) = known.get(&(salt.to_vec(), rounds)) {
            return Ok(*found);
        }
        let mut salted = [0; 32];
        pbkdf2::derive(
            pbkdf2::PBKDF2_HMAC_SHA256,
            NonZeroU32::new(rounds).ok_or("no rounds")?,
            salt,
            self.password.as_bytes(),
            &mut salted,
        );
        known.insert((salt.to_vec(), rounds), salted);
        Ok(salted)
    }
}

/// What a query brought.
#[derive(Debug, Default)]
pub(crate) struct Answer {
    /// All bytes of the answer, message headers included.
    pub(crate) bytes: u64,
    pub(crate) rows: u64,
    /// The first column of the first row.
    pub(crate) value: Option<String>,
}

#[derive(Debug)]
pub(crate) struct Client {
    stream: TcpStream,
    buffer: Vec<u8>,
    start: usize,
    end: usize,
}

impl Client {
    pub(crate) fn connect(port: u16, login: &Login, database: &str) -> Result<Self> {
        let stream = TcpStream::connect(("127.0.0.1", port))?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(Duration::from_secs(30)))?;
        stream.set_write_timeout(Some(Duration::from_secs(30)))?;
        let mut client = Self {
            stream,
            buffer: vec![0; 1024],
            start: 0,
            end: 0,
        };
        let mut startup = Vec::new();
        startup.extend(196_608_u32.to_be_bytes());
        for text in ["user", &login.user, "database", database] {
            startup.extend(text.as_bytes());
            startup.push(0);
        }
        startup.push(0);
        let length = u32::try_from(startup.len() + 4)?;
        client.send(&[&length.to_be_bytes()[..], &startup].concat())?;
        client.authenticate(login)?;
        Ok(client)
    }

    fn authenticate(&mut self, login: &Login) -> Result<()> {
        let mut scram = None;
        loop {
            let (tag, body) = self.message()?;
            match (tag, body.split_first_chunk::<4>()) {
                (b'R', Some((kind, data))) => match u32::from_be_bytes(*kind) {
                    0 => {}
                    10 => {
                        let (exchange, first) = Scram::begin()?;
                        let mut body = b"SCRAM-SHA-256\0".to_vec();
                        body.extend(u32::try_from(first.len())?.to_be_bytes());
                        body.extend(first.as_bytes());
                        scram = Some(exchange);
                        self.send_message(b'p', &body)?;
                    }
                    11 => {
                        let exchange = scram.as_ref().ok_or("SCRAM out of order")?;
                        let answer = exchange.answer(std::str::from_utf8(data)?, login)?;
                        self.send_message(b'p', answer.as_bytes())?;
                    }
                    12 => {}
                    other => return Err(format!("authentication method {other}").into()),
                },
                (b'Z', _) => return Ok(()),
                _ => {}
            }
        }
    }

    /// Runs a simple query and reads its whole answer.
    pub(crate) fn query(&mut self, sql: &str) -> Result<Answer> {
        self.send_query(sql)?;
        self.answer()
    }

    /// Runs a COPY FROM STDIN; `piece` is sent as one message until `total` bytes went.
    pub(crate) fn copy_in(&mut self, sql: &str, piece: &[u8], total: u64) -> Result<u64> {
        self.send_query(sql)?;
        loop {
            match self.message()? {
                (b'G', _) => break,
                (b'Z', _) => return Err("no COPY was begun".into()),
                _ => {}
            }
        }
        let mut message = vec![b'd'];
        message.extend(u32::try_from(piece.len() + 4)?.to_be_bytes());
        message.extend(piece);
        let batch = message.repeat(8);
        let mut sent = 0;
        while sent < total {
            self.send(&batch)?;
            sent += batch.len() as u64;
        }
        self.send(b"c\0\0\0\x04")?;
        self.answer()?;
        Ok(sent)
    }

    /// Says goodbye, so that the other side closes at once.
    pub(crate) fn close(mut self) -> Result<()> {
        self.send(b"X\0\0\0\x04")
    }

    fn send_query(&mut self, sql: &str) -> Result<()> {
        self.send_message(b'Q', &[sql.as_bytes(), b"\0"].concat())
    }

    fn answer(&mut self) -> Result<Answer> {
        let mut answer = Answer::default();
        loop {
            let (tag, body) = self.message()?;
            answer.bytes += body.len() as u64 + 5;
            match tag {
                b'D' => {
                    answer.rows += 1;
                    if answer.rows == 1 {
                        answer.value = body
                            .get(6..)
                            .map(|value| String::from_utf8_lossy(value).into_owned());
                    }
                }
                b'Z' => return Ok(answer),
                _ => {}
            }
        }
    }

    fn send_message(&mut self, tag: u8, body: &[u8]) -> Result<()> {
        let length = u32::try_from(body.len() + 4)?;
        self.send(&[&[tag][..], &length.to_be_bytes(), body].concat())
    }

    fn send(&mut self, bytes: &[u8]) -> Result<()> {
        Ok(self.stream.write_all(bytes)?)
    }

    /// The next message. An ErrorResponse is an error.
    fn message(&mut self) -> Result<(u8, &[u8])> {
        loop {
            let have = self.buffer.get(self.start..self.end).unwrap_or_default();
            let mut need = 5;
            if let Some((&[tag, a, b, c, d], rest)) = have.split_first_chunk::<5>() {
                let length = u32::from_be_bytes([a, b, c, d]) as usize;
                need = length + 1;
                if rest.len() + 5 >= need {
                    let body = self.start + 5..self.start + need;
                    self.start += need;
                    let body = self.buffer.get(body).ok_or("bad length")?;
                    if tag == b'E' {
                        let text = String::from_utf8_lossy(body).replace('\0', " ");
                        return Err(text.into());
                    }
                    return Ok((tag, body));
                }
            }
            self.fill(need)?;
        }
    }

    fn fill(&mut self, need: usize) -> Result<()> {
        self.buffer.copy_within(self.start..self.end, 0);
        self.end -= self.start;
        self.start = 0;
        // A small start for idle clients, a large buffer once there is much to read.
        if self.end == self.buffer.len() || need > self.buffer.len() {
            let larger = (self.buffer.len() * 4).clamp(need, need.max(256 * 1024));
            self.buffer.resize(larger, 0);
        }
        let room = self.buffer.get_mut(self.end..).unwrap_or_default();
        match self.stream.read(room)? {
            0 => Err("the server closed the connection".into()),
            n => {
                self.end += n;
                Ok(())
            }
        }
    }
}

/// The client's half of SCRAM-SHA-256 (RFC 5802, RFC 7677), without channel binding.
#[derive(Debug)]
struct Scram {
    first_bare: String,
}

impl Scram {
    fn begin() -> Result<(Self, String)> {
        let mut nonce = [0; 18];
        SystemRandom::new()
            .fill(&mut nonce)
            .map_err(|e| e.to_string())?;
        let first_bare = format!("n=,r={}", BASE64.encode(nonce));
        let first = format!("n,,{first_bare}");
        Ok((Self { first_bare }, first))
    }

    fn answer(&self, server_first: &str, login: &Login) -> Result<String> {
        let attribute = |name: &str| {
            server_first
                .split(',')
                .find_map(|part| part.strip_prefix(name))
                .ok_or_else(|| format!("no {name} in {server_first}"))
        };
        let salt = BASE64.decode(attribute("s=")?)?;
        let salted = login.salted_password(&salt, attribute("i=")?.parse()?)?;
        let without_proof = format!("c=biws,r={}", attribute("r=")?);
        let signed = format!("{},{server_first},{without_proof}", self.first_bare);

        let sign =
            |key: &[u8], data: &[u8]| hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, key), data);
        let client_key = sign(&salted, b"Client Key");
        let stored_key = digest::digest(&digest::SHA256, client_key.as_ref());
        let signature = sign(stored_key.as_ref(), signed.as_bytes());
        let proof: Vec<u8> = client_key
            .as_ref()
            .iter()
            .zip(signature.as_ref())
            .map(|(a, b)| a ^ b)
            .collect();
        Ok(format!("{without_proof},p={}", BASE64.encode(proof)))
    }
}

//! A client that says exactly what a test wants said, and returns exactly what comes back.

use std::time::Duration;

use postgres_protocol::authentication::{md5_hash, sasl};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    time::timeout,
};

/// A message from the server: its type and its body without the length.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct Frame {
    pub(crate) tag: char,
    pub(crate) body: Vec<u8>,
}

impl std::fmt::Debug for Frame {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}{:?}", self.tag, String::from_utf8_lossy(&self.body))
    }
}

impl Frame {
    /// A field of an ErrorResponse or NoticeResponse: `C` is the SQLSTATE, `M` the message.
    pub(crate) fn field(&self, field: char) -> String {
        self.body
            .split(|byte| *byte == 0)
            .find(|part| part.first() == Some(&(field as u8)))
            .map(|part| String::from_utf8_lossy(&part[1..]).into_owned())
            .unwrap_or_default()
    }
}

/// The types of messages, in a row.
pub(crate) fn tags(frames: &[Frame]) -> String {
    frames.iter().map(|frame| frame.tag).collect()
}

/// A connection past its startup.
#[derive(Debug)]
pub(crate) struct Raw {
    pub(crate) stream: TcpStream,
    buffer: Vec<u8>,
    /// All that came before the first ReadyForQuery.
    pub(crate) greeting: Vec<Frame>,
}

impl Raw {
    /// Connects as `app` to `app`.
    pub(crate) async fn connect(port: u16) -> Self {
        Self::connect_with(port, 196_608, &[("user", "app"), ("database", "app")])
            .await
            .unwrap()
    }

    /// Connects with these startup parameters, the password being the user's name; the error that
    /// came instead of a session.
    pub(crate) async fn connect_with(
        port: u16,
        version: i32,
        parameters: &[(&str, &str)],
    ) -> Result<Self, Frame> {
        let stream = TcpStream::connect(("127.0.0.1", port)).await.unwrap();
        stream.set_nodelay(true).unwrap();
        let mut raw = Self {
            stream,
            buffer: Vec::new(),
            greeting: Vec::new(),
        };
        let mut body = version.to_be_bytes().to_vec();
        for (name, value) in parameters {
            body.extend_from_slice(format!("{name}\0{value}\0").as_bytes());
        }
        body.push(0);
        raw.send(&message::untagged(&body)).await;
        let user = parameters
            .iter()
            .find(|(name, _)| *name == "user")
            .unwrap()
            .1;
        raw.log_in(user).await?;
        loop {
            let frame = raw.frame().await;
            match frame.tag {
                'Z' => return Ok(raw),
                'E' => return Err(frame),
                _ => raw.greeting.push(frame),
            }
        }
    }

    /// A CancelRequest for this session, as bytes.
    pub(crate) fn cancel_request(&self) -> Vec<u8> {
        let key = self.greeting.iter().find(|frame| frame.tag == 'K').unwrap();
        let mut body = 80_877_102_i32.to_be_bytes().to_vec();
        body.extend(&key.body);
        message::untagged(&body)
    }

    async fn log_in(&mut self, user: &str) -> Result<(), Frame> {
        let mut scram = None;
        loop {
            let frame = self.frame().await;
            if frame.tag == 'E' {
                return Err(frame);
            }
            if frame.tag != 'R' {
                self.greeting.push(frame);
                continue;
            }
            let (kind, data) = frame.body.split_first_chunk::<4>().unwrap();
            match i32::from_be_bytes(*kind) {
                0 => return Ok(()),
                3 => {
                    self.send(&message::tagged(b'p', format!("{user}\0").as_bytes()))
                        .await
                }
                5 => {
                    let salt = data.try_into().unwrap();
                    let answer = md5_hash(user.as_bytes(), user.as_bytes(), salt);
                    self.send(&message::tagged(b'p', format!("{answer}\0").as_bytes()))
                        .await;
                }
                10 => {
                    let new = sasl::ScramSha256::new(
                        user.as_bytes(),
                        sasl::ChannelBinding::unsupported(),
                    );
                    let mut body = b"SCRAM-SHA-256\0".to_vec();
                    body.extend(i32::try_from(new.message().len()).unwrap().to_be_bytes());
                    body.extend(new.message());
                    self.send(&message::tagged(b'p', &body)).await;
                    scram = Some(new);
                }
                11 => {
                    let scram = scram.as_mut().unwrap();
                    scram.update(data).unwrap();
                    let answer = scram.message().to_vec();
                    self.send(&message::tagged(b'p', &answer)).await;
                }
                12 => scram.as_mut().unwrap().finish(data).unwrap(),
                other => panic!("authentication request {other}"),
            }
        }
    }

    /// Sends bytes as they are.
    pub(crate) async fn send(&mut self, bytes: &[u8]) {
        self.stream.write_all(bytes).await.unwrap();
    }

    /// The same, to a connection that may have been closed.
    pub(crate) async fn try_send(&mut self, bytes: &[u8]) -> std::io::Result<()> {
        self.stream.write_all(bytes).await
    }

    /// The next message.
    pub(crate) async fn frame(&mut self) -> Frame {
        self.next().await.expect("the connection was closed")
    }

    /// The next message; `None` when the connection is closed, in whatever way.
    pub(crate) async fn next(&mut self) -> Option<Frame> {
        timeout(Duration::from_secs(30), self.read_frame())
            .await
            .expect("no message within 30 s")
    }

    /// Messages up to and with the `count`th ReadyForQuery.
    pub(crate) async fn until_ready(&mut self, count: usize) -> Vec<Frame> {
        let mut frames = Vec::new();
        while frames
            .iter()
            .filter(|frame: &&Frame| frame.tag == 'Z')
            .count()
            < count
        {
            frames.push(self.frame().await);
        }
        frames
    }

    /// Sends a simple query; the messages up to ReadyForQuery.
    pub(crate) async fn query(&mut self, sql: &str) -> Vec<Frame> {
        self.send(&message::query(sql)).await;
        self.until_ready(1).await
    }

    async fn read_frame(&mut self) -> Option<Frame> {
        loop {
            if let Some((header, rest)) = self.buffer.split_first_chunk::<5>() {
                let [tag, length @ ..] = *header;
                let length = usize::try_from(i32::from_be_bytes(length)).unwrap() - 4;
                if rest.len() >= length {
                    let body = rest[..length].to_vec();
                    self.buffer.drain(..5 + length);
                    return Some(Frame {
                        tag: tag as char,
                        body,
                    });
                }
            }
            match self.stream.read_buf(&mut self.buffer).await {
                Ok(0) | Err(_) => return None,
                Ok(_) => {}
            }
        }
    }
}

/// Messages to the server, as bytes.
pub(crate) mod message {
    /// A message with its type.
    pub(crate) fn tagged(tag: u8, body: &[u8]) -> Vec<u8> {
        let mut bytes = vec![tag];
        bytes.extend(untagged(body));
        bytes
    }

    /// A startup packet: length and body.
    pub(crate) fn untagged(body: &[u8]) -> Vec<u8> {
        let length = i32::try_from(body.len() + 4).unwrap();
        let mut bytes = length.to_be_bytes().to_vec();
        bytes.extend(body);
        bytes
    }

    pub(crate) fn query(sql: &str) -> Vec<u8> {
        tagged(b'Q', format!("{sql}\0").as_bytes())
    }

    /// Parse without parameter types.
    pub(crate) fn parse(name: &str, sql: &str) -> Vec<u8> {
        tagged(b'P', format!("{name}\0{sql}\0\0\0").as_bytes())
    }

    /// Bind with parameters and results as text.
    pub(crate) fn bind(portal: &str, statement: &str, parameters: &[&str]) -> Vec<u8> {
        let mut body = format!("{portal}\0{statement}\0\0\0").into_bytes();
        body.extend(i16::try_from(parameters.len()).unwrap().to_be_bytes());
        for parameter in parameters {
            body.extend(i32::try_from(parameter.len()).unwrap().to_be_bytes());
            body.extend(parameter.as_bytes());
        }
        body.extend([0, 0]);
        tagged(b'B', &body)
    }

    /// Describe of a statement (`S`) or portal (`P`).
    pub(crate) fn describe(kind: char, name: &str) -> Vec<u8> {
        tagged(b'D', format!("{kind}{name}\0").as_bytes())
    }

    /// Execute; all rows when `limit` is 0.
    pub(crate) fn execute(portal: &str, limit: i32) -> Vec<u8> {
        let mut body = format!("{portal}\0").into_bytes();
        body.extend(limit.to_be_bytes());
        tagged(b'E', &body)
    }

    /// Close of a statement (`S`) or portal (`P`).
    pub(crate) fn close(kind: char, name: &str) -> Vec<u8> {
        tagged(b'C', format!("{kind}{name}\0").as_bytes())
    }

    pub(crate) fn sync() -> Vec<u8> {
        tagged(b'S', b"")
    }

    pub(crate) fn flush() -> Vec<u8> {
        tagged(b'H', b"")
    }

    pub(crate) fn copy_data(data: &[u8]) -> Vec<u8> {
        tagged(b'd', data)
    }

    pub(crate) fn copy_done() -> Vec<u8> {
        tagged(b'c', b"")
    }

    pub(crate) fn copy_fail(why: &str) -> Vec<u8> {
        tagged(b'f', format!("{why}\0").as_bytes())
    }

    /// Fast-path call of a function by its OID, arguments and result as text.
    pub(crate) fn function_call(oid: u32, arguments: &[&str]) -> Vec<u8> {
        let mut body = oid.to_be_bytes().to_vec();
        body.extend([0, 0]);
        body.extend(i16::try_from(arguments.len()).unwrap().to_be_bytes());
        for argument in arguments {
            body.extend(i32::try_from(argument.len()).unwrap().to_be_bytes());
            body.extend(argument.as_bytes());
        }
        body.extend([0, 0]);
        tagged(b'F', &body)
    }

    /// One extended query from Parse to Sync, unnamed.
    pub(crate) fn extended(sql: &str, parameters: &[&str]) -> Vec<u8> {
        [
            parse("", sql),
            bind("", "", parameters),
            describe('P', ""),
            execute("", 0),
            sync(),
        ]
        .concat()
    }
}

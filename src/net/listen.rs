//! Sockets that clients connect to.

use std::{io, net::SocketAddr, os::unix::fs::PermissionsExt as _, path::Path};

use tokio::net::{TcpListener, TcpSocket, UnixListener};

/// Connections that the kernel holds until they are accepted.
const BACKLOG: u32 = 1024;

/// Listens. Accepted sockets inherit keep-alive and the option that sends small messages at once
/// (on Linux), which saves a system call for each. `shared`: several listeners of this process may
/// have the same address, and the kernel spreads connections over them.
///
/// # Errors
/// The system's: the address is in use, isn't this machine's, needs privileges.
pub fn listen_tcp(address: SocketAddr, shared: bool) -> io::Result<TcpListener> {
    let socket = if address.is_ipv4() {
        TcpSocket::new_v4()
    } else {
        TcpSocket::new_v6()
    }?;
    socket.set_reuseaddr(true)?;
    socket.set_reuseport(shared)?;
    socket.set_keepalive(true)?;
    socket.set_nodelay(true)?;
    socket.bind(address)?;
    socket.listen(BACKLOG)
}

/// Listens on `<directory>/.s.PGSQL.<port>`, where every user of this machine may connect, as with
/// PostgreSQL's default. A socket file that a dead process left is replaced, one with a living
/// listener is not.
///
/// # Errors
/// The system's; `AddrInUse` when another process listens there.
pub fn listen_unix(directory: &Path, port: u16) -> io::Result<UnixListener> {
    let path = directory.join(format!(".s.PGSQL.{port}"));
    let listener = match UnixListener::bind(&path) {
        Err(error) if error.kind() == io::ErrorKind::AddrInUse => {
            match std::os::unix::net::UnixStream::connect(&path) {
                Err(refused) if refused.kind() == io::ErrorKind::ConnectionRefused => {
                    std::fs::remove_file(&path)?;
                    UnixListener::bind(&path)
                }
                _ => Err(error),
            }
        }
        bound => bound,
    }?;
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o777))?;
    Ok(listener)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_socket_left_by_a_dead_process_is_replaced_but_a_living_one_is_not() {
        let directory = tempfile::tempdir().unwrap();
        let first = listen_unix(directory.path(), 1).unwrap();
        assert_eq!(
            listen_unix(directory.path(), 1).unwrap_err().kind(),
            io::ErrorKind::AddrInUse
        );
        drop(first);
        listen_unix(directory.path(), 1).unwrap();
    }

    #[tokio::test]
    async fn accepted_sockets_send_small_messages_at_once() {
        let listener = listen_tcp("127.0.0.1:0".parse().unwrap(), false).unwrap();
        let address = listener.local_addr().unwrap();
        let (accepted, connected) =
            tokio::join!(listener.accept(), tokio::net::TcpStream::connect(address));
        drop(connected.unwrap());
        assert!(accepted.unwrap().0.nodelay().unwrap());
    }
}

//! A network between the proxy and a node that a test can disturb.

use std::{
    io,
    net::{Ipv4Addr, SocketAddr},
    time::Duration,
};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpSocket, TcpStream, tcp},
    sync::watch,
    time::timeout,
};

use super::free_port;

/// What the network does to everything that passes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fault {
    None,
    /// Each piece of data is this late.
    Delay(Duration),
    /// Connections are accepted, and nothing passes, as when packets are dropped. It passes when
    /// this ends.
    BlackHole,
    /// And nobody can connect: packets that ask for it are dropped.
    Unreachable,
}

/// What happens once, to the connections that exist.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Cut {
    /// Both ends get a reset.
    Reset,
    /// The proxy hears that the node will say nothing more; the node hears nothing.
    EndTowardsProxy,
    /// The node hears that the proxy will say nothing more.
    EndTowardsNode,
}

/// The way to one node, on a port of its own. Ends with this value.
#[derive(Debug)]
pub(crate) struct Relay {
    pub(crate) port: u16,
    fault: watch::Sender<Fault>,
    cuts: watch::Sender<Cuts>,
    stop: watch::Sender<bool>,
    thread: Option<std::thread::JoinHandle<()>>,
}

/// How often each happened.
#[derive(Clone, Copy, Debug, Default)]
struct Cuts {
    resets: u64,
    towards_proxy: u64,
    towards_node: u64,
}

impl Cuts {
    fn of(&mut self, cut: Cut) -> &mut u64 {
        match cut {
            Cut::Reset => &mut self.resets,
            Cut::EndTowardsProxy => &mut self.towards_proxy,
            Cut::EndTowardsNode => &mut self.towards_node,
        }
    }
}

/// What a connection needs.
#[derive(Clone, Debug)]
struct Way {
    to: SocketAddr,
    fault: watch::Receiver<Fault>,
    cuts: watch::Receiver<Cuts>,
}

impl Relay {
    /// Leads to a port on loopback.
    pub(crate) fn to(node: u16) -> Self {
        let port = free_port().unwrap();
        let fault = watch::Sender::new(Fault::None);
        let cuts = watch::Sender::new(Cuts::default());
        let stop = watch::Sender::new(false);
        let way = Way {
            to: (Ipv4Addr::LOCALHOST, node).into(),
            fault: fault.subscribe(),
            cuts: cuts.subscribe(),
        };
        let mut stopped = stop.subscribe();
        let (ready, is_ready) = std::sync::mpsc::channel();
        let thread = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build()
                .unwrap();
            runtime.block_on(async {
                let listener = listen(port, BACKLOG).unwrap();
                ready.send(()).unwrap();
                tokio::select! {
                    () = accept(listener, port, way) => {}
                    _stop = stopped.wait_for(|stop| *stop) => {}
                }
            });
            runtime.shutdown_background();
        });
        is_ready.recv().unwrap();
        Self {
            port,
            fault,
            cuts,
            stop,
            thread: Some(thread),
        }
    }

    /// From now on.
    pub(crate) fn set(&self, fault: Fault) {
        self.fault.send_replace(fault);
    }

    /// Now.
    pub(crate) fn cut(&self, cut: Cut) {
        self.cuts.send_modify(|cuts| *cuts.of(cut) += 1);
    }
}

impl Drop for Relay {
    fn drop(&mut self) {
        self.stop.send_replace(true);
        if let Some(thread) = self.thread.take() {
            drop(thread.join());
        }
    }
}

const BACKLOG: u32 = 1024;

fn listen(port: u16, backlog: u32) -> io::Result<TcpListener> {
    let socket = TcpSocket::new_v4()?;
    socket.set_reuseaddr(true)?;
    socket.bind((Ipv4Addr::LOCALHOST, port).into())?;
    socket.listen(backlog)
}

/// A program that this process is just starting holds the former listener until it runs.
async fn listen_again(port: u16, backlog: u32) -> TcpListener {
    let mut tries = 0;
    loop {
        match listen(port, backlog) {
            Err(error) if error.kind() == io::ErrorKind::AddrInUse && tries < 1000 => tries += 1,
            listener => return listener.unwrap(),
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

async fn accept(mut listener: TcpListener, port: u16, way: Way) {
    let mut fault = way.fault.clone();
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => Some(accepted.unwrap().0),
            _unreachable = fault.wait_for(|fault| *fault == Fault::Unreachable) => None,
        };
        match accepted {
            Some(proxy) => drop(tokio::spawn(carry(proxy, way.clone()))),
            None => {
                drop(listener);
                // The kernel drops what the queue has no room for.
                let full = listen_again(port, 0).await;
                let mut fillers = Vec::new();
                let filler = || TcpStream::connect((Ipv4Addr::LOCALHOST, port));
                while let Ok(Ok(filler)) = timeout(Duration::from_millis(50), filler()).await {
                    fillers.push(filler);
                }
                drop(fault.wait_for(|fault| *fault != Fault::Unreachable).await);
                drop((full, fillers));
                listener = listen_again(port, BACKLOG).await;
            }
        }
    }
}

async fn carry(mut proxy: TcpStream, way: Way) {
    let mut cuts = way.cuts.clone();
    let resets = cuts.borrow().resets;
    let work = async {
        passes(&mut way.fault.clone()).await;
        let mut node = TcpStream::connect(way.to).await?;
        node.set_nodelay(true)?;
        proxy.set_nodelay(true)?;
        let reset = {
            let (from_proxy, to_proxy) = proxy.split();
            let (from_node, to_node) = node.split();
            let there = pass(from_proxy, to_node, way.clone(), Cut::EndTowardsNode);
            let back = pass(from_node, to_proxy, way.clone(), Cut::EndTowardsProxy);
            tokio::select! {
                _reset = cuts.wait_for(|cuts| cuts.resets > resets) => true,
                ends = async { tokio::try_join!(there, back) } => ends.is_err(),
            }
        };
        if reset {
            node.set_zero_linger()?;
            return Err(io::ErrorKind::ConnectionReset.into());
        }
        Ok::<(), io::Error>(())
    };
    if work.await.is_err() {
        drop(proxy.set_zero_linger());
    }
}

async fn pass(
    mut from: tcp::ReadHalf<'_>,
    mut to: tcp::WriteHalf<'_>,
    way: Way,
    end: Cut,
) -> io::Result<()> {
    let (mut fault, mut cuts) = (way.fault.clone(), way.cuts.clone());
    let since = *cuts.borrow().clone().of(end);
    let mut buffer = vec![0; 64 << 10];
    loop {
        let count = tokio::select! {
            biased;
            _end = cuts.wait_for(|cuts| *cuts.clone().of(end) > since) => None,
            count = from.read(&mut buffer) => Some(count?),
        };
        let Some(count) = count else {
            to.shutdown().await?;
            // Whatever still comes is dropped.
            while from.read(&mut buffer).await? > 0 {}
            return Ok(());
        };
        let late = passes(&mut fault).await;
        if !late.is_zero() {
            tokio::time::sleep(late).await;
        }
        if count == 0 {
            return to.shutdown().await;
        }
        to.write_all(&buffer[..count]).await?;
    }
}

/// Waits until something passes; how late it is to be.
async fn passes(fault: &mut watch::Receiver<Fault>) -> Duration {
    let open = fault
        .wait_for(|fault| !matches!(fault, Fault::BlackHole | Fault::Unreachable))
        .await;
    match open.as_deref() {
        Ok(Fault::Delay(late)) => *late,
        _ => Duration::ZERO,
    }
}

//! The server: one thread, a few clients, requests that are lines, answers that are lines of JSON.
//!
//! Whatever a client does costs at most what is here: [`CLIENTS`] sockets, [`REQUEST`] bytes for each, one answer. Sockets do not block;
//! a client that does not take an answer, or sends a line that is too long, is hung up on.

use super::place::{is_alive, is_our_socket};
use super::{History, Source};
use crate::picture::Painter;
use core::array;
use core::mem;
use core::sync::atomic::{AtomicBool, AtomicI32, Ordering};
use core::time::Duration;
use heapwright::ForkStep;
use heapwright_os::RawLock;
use rustix::event::{EventfdFlags, PollFd, PollFlags};
use rustix::fs::Mode;
use rustix::io::Errno;
use rustix::net::{AddressFamily, RecvFlags, SendFlags, SocketAddrUnix, SocketFlags, SocketType};
use rustix::process::{Pid, getpid};
use std::ffi::OsStr;
use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread::{self, JoinHandle};
use std::time::Instant;

/// The most clients at a time; one more takes the place of the one that has been quiet for longest.
const CLIENTS: usize = 8;
/// The longest request: a word and a path.
const REQUEST: usize = 4096 + 64;
/// After an answer, before the next: a client that asks as fast as it can does not slow the program.
const REST: Duration = Duration::from_millis(2);

/// How long the end of a server is waited for.
const PARTING: Duration = Duration::from_secs(2);

/// The descriptors that a server has open, for the child of a fork to close.
#[derive(Debug)]
pub struct Descriptors {
    lock: RawLock,
    all: [AtomicI32; CLIENTS + 2],
}

impl Descriptors {
    fn new() -> Self {
        Self {
            lock: RawLock::new(),
            all: array::from_fn(|_| AtomicI32::new(-1)),
        }
    }

    /// Before a fork: nothing is opened or closed until [`Descriptors::unlock`].
    pub fn lock(&self) {
        self.lock.lock();
    }

    /// After it, in the parent.
    pub fn unlock(&self) {
        self.lock.unlock();
    }

    /// After it, in the child: closes them all.
    ///
    /// # Safety
    /// The process is the child of a fork, and nobody uses the server any more, not even to drop it. Before the fork [`Descriptors::lock`]
    /// was called, else some may stay open.
    #[allow(unsafe_code, reason = "numbers of descriptors are closed here only")]
    pub unsafe fn close(&self) {
        for descriptor in &self.all {
            let number = descriptor.swap(-1, Ordering::Relaxed);
            if number >= 0 {
                // SAFETY: the server opened it, and it is open: who closes one takes it out of the list before. Nobody else closes it in
                // this process: the caller's promise.
                unsafe { rustix::io::close(number) };
            }
        }
    }

    fn set(&self, index: usize, fd: Option<&OwnedFd>) {
        let number = fd.map_or(-1, AsRawFd::as_raw_fd);
        if let Some(place) = self.all.get(index) {
            place.store(number, Ordering::Relaxed);
        }
    }
}

#[derive(Debug)]
struct Client {
    socket: OwnedFd,
    request: [u8; REQUEST],
    len: usize,
    /// When it was heard of last, by the count of requests.
    heard: u64,
}

/// A socket that is bound, and what it takes to answer.
#[derive(Debug)]
pub struct Server {
    path: PathBuf,
    socket: OwnedFd,
    wake: OwnedFd,
    stop: AtomicBool,
    descriptors: Descriptors,
    /// Who serves. A child of a fork does not.
    process: Pid,
}

/// The server's own, while it serves.
struct Service<'s> {
    server: &'s Server,
    history: &'s History,
    source: &'s dyn Source,
    clients: [Option<Client>; CLIENTS],
    painter: Painter,
    requests: u64,
}

impl Server {
    /// Listens at a path. A socket there that nobody listens to any more is replaced; anything else is an error.
    ///
    /// # Errors
    /// If the path is too long for a socket or in use, or as the system says.
    pub fn open(path: &Path) -> io::Result<Self> {
        let address = SocketAddrUnix::new(path)?;
        let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
        let socket =
            rustix::net::socket_with(AddressFamily::UNIX, SocketType::STREAM, flags, None)?;
        // The file gets the mode of the socket.
        rustix::fs::fchmod(&socket, Mode::RUSR | Mode::WUSR)?;
        let mut bound = rustix::net::bind(&socket, &address);
        if bound == Err(Errno::ADDRINUSE) && is_our_socket(path) && !is_alive(path) {
            rustix::fs::unlink(path)?;
            bound = rustix::net::bind(&socket, &address);
        }
        bound?;
        rustix::net::listen(&socket, 16)?;
        let wake = rustix::event::eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?;
        let descriptors = Descriptors::new();
        descriptors.set(0, Some(&socket));
        descriptors.set(1, Some(&wake));
        Ok(Self {
            path: path.to_owned(),
            socket,
            wake,
            stop: AtomicBool::new(false),
            descriptors,
            process: getpid(),
        })
    }

    /// Where it listens.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// What it has open.
    #[must_use]
    pub fn descriptors(&self) -> &Descriptors {
        &self.descriptors
    }

    /// For the listener of a heap that forks to pass on ([`heapwright::Listener::fork`]): the child closes what it inherited.
    pub fn fork(self: &Arc<Self>, step: ForkStep) {
        match step {
            ForkStep::Before => self.descriptors.lock(),
            ForkStep::Parent => self.descriptors.unlock(),
            ForkStep::Child => self.close_in_child(),
        }
    }

    #[allow(unsafe_code, reason = "one block")]
    fn close_in_child(self: &Arc<Self>) {
        if self.is_ours() {
            return;
        }
        // It is never dropped.
        mem::forget(Arc::clone(self));
        // SAFETY: this is another process than the server's, so a child of it that has no such thread; and nobody drops the server.
        unsafe { self.descriptors.close() };
    }

    fn is_ours(&self) -> bool {
        self.process == getpid()
    }

    /// Removes the socket's file, so that nobody connects any more. At the end of the process that opened it.
    pub fn remove(&self) {
        let _ = rustix::fs::unlink(&self.path);
    }

    /// Answers until [`Server::stop`]. Returns at once if there is no memory for it.
    pub fn serve(&self, history: &History, source: &dyn Source) {
        let Ok(painter) = Painter::new() else {
            return;
        };
        let mut service = Service {
            server: self,
            history,
            source,
            clients: array::from_fn(|_| None),
            painter,
            requests: 0,
        };
        while !self.stop.load(Ordering::Acquire) {
            service.turn();
        }
        for index in 0..CLIENTS {
            service.hang_up(index);
        }
    }

    /// Has [`Server::serve`] return soon. Any thread.
    pub fn stop(&self) {
        self.stop.store(true, Ordering::Release);
        let _ = rustix::io::write(&self.wake, &1u64.to_ne_bytes());
    }
}

impl Service<'_> {
    /// Waits until there is something to do, and does it.
    fn turn(&mut self) {
        let server = self.server;
        let ready: [bool; CLIENTS + 1] = {
            let mut polled: [PollFd<'_>; CLIENTS + 2] = array::from_fn(|i| match i {
                0 => PollFd::new(&server.socket, PollFlags::IN),
                1 => PollFd::new(&server.wake, PollFlags::IN),
                i => match &self.clients[i - 2] {
                    Some(client) => PollFd::new(&client.socket, PollFlags::IN),
                    None => PollFd::new(&server.wake, PollFlags::empty()),
                },
            });
            match rustix::event::poll(&mut polled, None) {
                Ok(_) | Err(Errno::INTR) => {}
                // There is no memory for it at the moment.
                Err(_) => thread::sleep(Duration::from_millis(100)),
            }
            array::from_fn(|i| !polled[if i == 0 { 0 } else { i + 1 }].revents().is_empty())
        };
        let before = self.requests;
        for index in 0..CLIENTS {
            if ready[index + 1] && self.clients[index].is_some() && !self.hear(index) {
                self.hang_up(index);
            }
        }
        if ready[0] {
            self.accept();
        }
        if self.requests != before {
            thread::sleep(REST);
        }
    }

    fn accept(&mut self) {
        let free = self.clients.iter().position(Option::is_none);
        let quietest = || {
            let heard = |i: &usize| self.clients[*i].as_ref().map_or(0, |c| c.heard);
            (0..CLIENTS).min_by_key(heard).unwrap_or(0)
        };
        let index = free.unwrap_or_else(quietest);
        self.hang_up(index);
        let descriptors = &self.server.descriptors;
        descriptors.lock();
        let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
        let accepted = rustix::net::accept_with(&self.server.socket, flags);
        descriptors.set(index + 2, accepted.as_ref().ok());
        descriptors.unlock();
        match accepted {
            Ok(socket) if is_friend(&socket) => {
                self.requests += 1;
                self.clients[index] = Some(Client {
                    socket,
                    request: [0; REQUEST],
                    len: 0,
                    heard: self.requests,
                });
            }
            Ok(socket) => self.close(index, socket),
            // No descriptor is left: the one who waits stays ready, and is not asked for all the time.
            Err(Errno::MFILE | Errno::NFILE | Errno::NOMEM | Errno::NOBUFS) => {
                thread::sleep(Duration::from_millis(100));
            }
            Err(_) => {}
        }
    }

    fn hang_up(&mut self, index: usize) {
        if let Some(client) = self.clients[index].take() {
            self.close(index, client.socket);
        }
    }

    fn close(&self, index: usize, socket: OwnedFd) {
        let descriptors = &self.server.descriptors;
        descriptors.lock();
        descriptors.set(index + 2, None);
        drop(socket);
        descriptors.unlock();
    }

    /// Reads what a client sent, and answers the first whole line. False: it is to be hung up on.
    fn hear(&mut self, index: usize) -> bool {
        let Some(client) = &mut self.clients[index] else {
            return false;
        };
        let room = &mut client.request[client.len..];
        match rustix::net::recv(&client.socket, room, RecvFlags::DONTWAIT) {
            Ok((_, 0)) => return false,
            Ok((_, got)) => client.len += got.min(REQUEST),
            Err(Errno::AGAIN | Errno::INTR) => return true,
            Err(_) => return false,
        }
        loop {
            let Some(client) = &mut self.clients[index] else {
                return false;
            };
            let Some(end) = client.request[..client.len]
                .iter()
                .position(|b| *b == b'\n')
            else {
                // A line that does not end.
                return client.len < REQUEST;
            };
            self.requests += 1;
            client.heard = self.requests;
            let mut request = [0; REQUEST];
            request[..end].copy_from_slice(&client.request[..end]);
            client.request.copy_within(end + 1..client.len, 0);
            client.len -= end + 1;
            self.answer(&request[..end]);
            let Some(client) = &self.clients[index] else {
                return false;
            };
            let answer = self.painter.out().bytes();
            let flags = SendFlags::DONTWAIT | SendFlags::NOSIGNAL;
            if rustix::net::send(client.socket.as_fd(), answer, flags) != Ok(answer.len()) {
                return false;
            }
        }
    }

    /// Leaves the answer in the painter's text.
    fn answer(&mut self, request: &[u8]) {
        self.painter.out().clear();
        let (word, rest) = match request.iter().position(|b| *b == b' ') {
            Some(at) => (&request[..at], &request[at + 1..]),
            None => (request, &[][..]),
        };
        match (word, rest) {
            (b"status", b"") => {
                let using = self.source.using();
                self.history.status(&using, self.painter.out());
            }
            (b"map", b"") => {
                let (history, painter) = (self.history, &mut self.painter);
                let number = history.collections();
                let at_ns = history.elapsed_ns();
                self.source.map(&mut |map| {
                    history.with_ages(|ages| {
                        let head = format_args!(
                            "\"type\":\"map\",\"number\":{number},\"when\":\"now\",\"at_ns\":{at_ns}"
                        );
                        painter.draw(head, map, ages);
                    });
                });
                if self.painter.out().bytes().is_empty() {
                    self.error("there is no map");
                }
            }
            (b"collect", b"") => {
                if self.source.collect() {
                    let number = self.history.collections();
                    self.painter.out().put(format_args!(
                        "{{\"type\":\"collect\",\"collections\":{number}}}\n"
                    ));
                } else {
                    self.error("collections cannot be asked for");
                }
            }
            (b"dump", [b'/', ..]) => match self.source.dump(Path::new(OsStr::from_bytes(rest))) {
                Ok(pause_ns) => {
                    self.painter.out().put(format_args!(
                        "{{\"type\":\"dump\",\"pause_ns\":{pause_ns}}}\n"
                    ));
                }
                Err(Some(why)) => self.error(&why),
                Err(None) => self.error("this heap cannot be dumped like this"),
            },
            (b"dump", _) => self.error("dump: an absolute path is wanted"),
            _ => self.error("requests are status, map, collect, and dump with a path"),
        }
    }

    fn error(&mut self, text: &str) {
        let out = self.painter.out();
        out.clear();
        out.put(format_args!("{{\"type\":\"error\",\"text\":"));
        out.string(text).put(format_args!("}}\n"));
    }
}

/// Is the one at the other end of this user, or root?
fn is_friend(socket: &OwnedFd) -> bool {
    let own = rustix::process::geteuid();
    rustix::net::sockopt::socket_peercred(socket)
        .is_ok_and(|peer| peer.uid == own || peer.uid.is_root())
}

/// A server with a thread, which ends when this is dropped. For embedded heaps.
#[derive(Debug)]
pub struct Listening {
    server: Arc<Server>,
    thread: Option<JoinHandle<()>>,
}

impl Listening {
    /// Answers for a heap that has `history` as its listener. The thread has the calling thread's signal mask.
    ///
    /// # Errors
    /// If no thread can be started: the socket is gone then.
    pub fn start(
        server: Arc<Server>,
        history: Arc<History>,
        source: impl Source + 'static,
    ) -> io::Result<Self> {
        let own = Arc::clone(&server);
        let thread = thread::Builder::new()
            .name("heapwright-live".to_owned())
            .spawn(move || own.serve(&history, &source))
            .inspect_err(|_| server.remove())?;
        Ok(Self {
            server,
            thread: Some(thread),
        })
    }
}

impl Drop for Listening {
    fn drop(&mut self) {
        let Some(thread) = self.thread.take() else {
            return;
        };
        if !self.server.is_ours() {
            // The child of a fork has no such thread.
            mem::forget(thread);
            return;
        }
        self.server.remove();
        self.server.stop();
        // It may be about to stop the world for a dump, and the calling thread be one that it waits for: then it ends by itself later.
        let begin = Instant::now();
        while !thread.is_finished() && begin.elapsed() < PARTING {
            thread::sleep(Duration::from_millis(1));
        }
    }
}

//! Who is compared: our plans, and the peers that another command has.

use crate::bench::child::{Interrupted, Runner};
use crate::refusal::Refusal;
use heapwright::plan;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

/// Names the command with the peers.
const VARIABLE: &str = "HEAPWRIGHT_PEERS";
/// Where it is if it was built in the project's directory.
const BUILT: &str = "peers/target/release/peers";

/// A memory manager on which workloads run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Contestant {
    /// A plan of ours.
    Plan(String),
    /// Anything else.
    Peer(String),
}

impl Contestant {
    pub(crate) fn name(&self) -> &str {
        match self {
            Self::Plan(name) | Self::Peer(name) => name,
        }
    }

    /// The size of the heap means nothing to it.
    pub(crate) fn is_unlimited(&self) -> bool {
        matches!(self.name(), "malloc" | "jemalloc" | "mimalloc")
    }
}

/// Is it one of ours?
pub(crate) fn is_ours(name: &str) -> bool {
    plan::ALL.iter().any(|p| p.name == name)
}

/// The plan of the same kind among ours, of a peer.
pub(crate) fn kin(peer: &str) -> Option<&'static str> {
    let of_mmtk = peer.strip_prefix("mmtk-")?;
    plan::ALL
        .iter()
        .map(|p| p.name)
        .find(|name| *name == of_mmtk)
}

/// The other command.
#[derive(Debug)]
pub(crate) struct Peers {
    file: PathBuf,
    names: Vec<String>,
}

impl Peers {
    /// Looks for it and asks it whom it has.
    pub(crate) fn find(given: Option<&Path>, runner: &mut Runner) -> Result<Self, Refusal> {
        let named = given
            .map(Path::to_owned)
            .or_else(|| std::env::var_os(VARIABLE).map(PathBuf::from));
        let file = named.unwrap_or_else(|| PathBuf::from(BUILT));
        if !file.is_file() {
            return Err(Refusal::usage(format!(
                "there is no {}. The peers are built by themselves, since mmtk takes minutes:\n  \
                 cargo build --release --manifest-path peers/Cargo.toml\n\
                 --peers or {VARIABLE} names the file; --with takes plans of ours, which need no peers",
                file.display()
            )));
        }
        let file = std::path::absolute(&file)
            .map_err(|e| Refusal::usage(format!("{}: {e}", file.display())))?;
        let mut command = Command::new(&file);
        command.arg("--list");
        let listed = runner.run_command(command, Duration::from_secs(60));
        let unusable = |why: &str| Refusal::ours(format!("{} --list: {why}", file.display()));
        let ended = match listed {
            Ok(Ok(ended)) => ended,
            Ok(Err(why)) => return Err(unusable(&why)),
            Err(Interrupted(_)) => return Err(unusable("interrupted")),
        };
        ended.last_line().map_err(|why| unusable(&why))?;
        let names: Vec<String> = ended
            .said
            .lines()
            .skip_while(|l| !l.starts_with("peers:"))
            .skip(1)
            .take_while(|l| l.starts_with(' '))
            .filter_map(|l| l.split_whitespace().next())
            .map(str::to_owned)
            .collect();
        if names.is_empty() {
            return Err(unusable("it lists no peers"));
        }
        Ok(Self { file, names })
    }

    pub(crate) fn names(&self) -> &[String] {
        &self.names
    }

    pub(crate) fn file(&self) -> &Path {
        &self.file
    }
}

/// The contestants of these names; without any, our plans and the peers that collect or free.
pub(crate) fn chosen(
    names: &[String],
    peers: impl FnOnce() -> Result<Peers, Refusal>,
) -> Result<(Vec<Contestant>, Option<Peers>), Refusal> {
    let only_ours = !names.is_empty() && names.iter().all(|n| is_ours(n));
    let peers = if only_ours { None } else { Some(peers()?) };
    let listed = peers.as_ref().map_or(&[][..], Peers::names);
    if names.is_empty() {
        let ours = plan::ALL
            .iter()
            .filter(|p| p.collects && p.name != "pageprotect")
            .map(|p| Contestant::Plan(p.name.to_owned()));
        // The plans that do not collect, and the one that uses a page for each object, are for other purposes.
        let theirs = listed
            .iter()
            .filter(|n| !matches!(n.as_str(), "mmtk-nogc" | "mmtk-pageprotect"))
            .map(|n| Contestant::Peer(n.clone()));
        return Ok((ours.chain(theirs).collect(), peers));
    }
    let mut found: Vec<Contestant> = Vec::new();
    for name in names {
        let new = if is_ours(name) {
            Contestant::Plan(name.clone())
        } else if listed.contains(name) {
            Contestant::Peer(name.clone())
        } else {
            let ours: Vec<&str> = plan::ALL.iter().map(|p| p.name).collect();
            return Err(Refusal::usage(format!(
                "there is no contestant {name}; there are our plans {}, and the peers {}",
                ours.join(", "),
                listed.join(", ")
            )));
        };
        if !found.contains(&new) {
            found.push(new);
        }
    }
    Ok((found, peers))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::*;

    fn peers() -> Result<Peers, Refusal> {
        Ok(Peers {
            file: PathBuf::from("/peers"),
            names: ["mmtk-nogc", "mmtk-immix", "boehm", "malloc"]
                .map(str::to_owned)
                .to_vec(),
        })
    }

    fn names(list: &[&str]) -> Result<Vec<String>, Refusal> {
        let list: Vec<String> = list.iter().map(|n| (*n).to_owned()).collect();
        let (chosen, _) = chosen(&list, peers)?;
        Ok(chosen.iter().map(|c| c.name().to_owned()).collect())
    }

    #[test]
    fn contestants_are_plans_and_peers() {
        assert_eq!(
            names(&["immix", "boehm", "immix"]).unwrap(),
            ["immix", "boehm"]
        );
        let all = names(&[]).unwrap();
        assert!(all.contains(&"genimmix".to_owned()) && all.contains(&"malloc".to_owned()));
        assert!(!all.contains(&"mmtk-nogc".to_owned()) && !all.contains(&"nogc".to_owned()));
        let e = names(&["immix", "hoard"]).unwrap_err();
        assert!(e.to_string().contains("boehm"), "{e}");
    }

    #[test]
    fn plans_of_ours_need_no_peers() {
        let none = || Err(Refusal::usage("none"));
        let immix = ["immix".to_owned()];
        assert!(chosen(&immix, none).is_ok());
        assert!(chosen(&[], none).is_err());
    }

    #[test]
    fn kin_are_plans_of_the_same_kind() {
        assert_eq!(kin("mmtk-immix"), Some("immix"));
        assert_eq!(kin("mmtk-compressor"), None);
        assert_eq!(kin("boehm"), None);
    }
}

//! The fixture of machine tests: a kernel, QEMU, an image with this build's agent, and the identity that a guest is sent.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::time::Duration;

use nex_erofs::{Kind, Meta, Options, Source, Tree};
use nex_protocol::guest::{GuestIdentity, GuestLimits, GuestNetwork, ToGuest};

/// Longest time for anything here: machines are slow without acceleration, more so beside others.
pub(crate) const TIMEOUT: Duration = Duration::from_secs(60);
/// Memory of the machines, MiB: the smallest supported.
pub(crate) const MEMORY: u32 = 128;
/// The agent's uid in a guest.
pub(crate) const UID: u32 = 61_234;
/// A time that differs from the host's clock.
pub(crate) const YEAR_2033: Duration = Duration::from_secs(2_000_000_000);
/// The host's address in SLIRP; link-local, because the metadata service's address is.
pub(crate) const HOST: &str = "169.254.0.2";

const QEMU: &str = "qemu-system-x86_64";
const ADDRESS: &str = "169.254.0.15";
const NETWORK: &str = "169.254.0.0/16";
const SERVICE: &str = "169.254.169.254:80";

/// Options of a machine.
#[derive(Debug, Clone, Default)]
pub(crate) struct MachineOptions {
    /// Its memory is a file, so that it can be cloned.
    pub(crate) template: bool,
    /// It is restored from a snapshot.
    pub(crate) clone: bool,
    /// A port of this host that answers as the metadata service.
    pub(crate) metadata: Option<u16>,
}

/// Programs and files for machines.
pub(crate) struct Fixture {
    kernel: PathBuf,
    pub(crate) qemu: PathBuf,
    pub(crate) busybox: Option<PathBuf>,
}

impl Fixture {
    pub(crate) fn find() -> Result<Self, String> {
        let kernel = std::env::var_os("NEX_KERNEL").map(PathBuf::from);
        let kernel = kernel.filter(|it| it.is_file()).ok_or("no guest kernel: NEX_KERNEL names none")?;
        let kernel = fs::canonicalize(kernel).map_err(|error| error.to_string())?;
        Ok(Self { kernel, qemu: on_path(QEMU).ok_or("no QEMU")?, busybox: on_path("busybox") })
    }

    /// QEMU's command line.
    pub(crate) fn arguments(&self, options: &MachineOptions) -> Vec<String> {
        let kernel = self.kernel.to_str().unwrap();
        // The lab's KVM runs guests; emulation within its own emulation would be too slow.
        let is_lab = std::env::var_os("NEX_LAB").is_some();
        let (accel, clock) = if is_lab { ("kvm -cpu host", "") } else { ("tcg,tb-size=32 -cpu max", "tsc=reliable ") };
        let boot = format!(
            "console=hvc0 quiet loglevel=4 reboot=t panic=-1 {clock}no_timer_check \
             root=/dev/vda ro rootfstype=erofs init=/nex-agent"
        );
        let (share, incoming) = if options.clone { ("off", "-incoming defer") } else { ("on", "") };
        let file = format!("-object memory-backend-file,id=ram,size={MEMORY}M,mem-path=ram,share={share} {incoming}");
        let (backend, ram) = if options.template || options.clone { (",memory-backend=ram", file) } else { ("", String::new()) };
        let line = format!(
            "-M microvm,acpi=off,pit=on,pic=on,rtc=on,isa-serial=off{backend} -accel {accel} -m {MEMORY} {ram} \
             -nodefaults -no-user-config -display none -no-reboot -kernel {kernel} \
             -qmp unix:qmp.sock,server=on,wait=off -device virtio-serial-device \
             -chardev file,id=console,path=console.log -device virtconsole,chardev=console \
             -chardev socket,id=channel,path=channel.sock,server=on,wait=off \
             -device virtserialport,id=port,chardev=channel,name=nex \
             -drive id=root,file=root.img,format=raw,if=none,readonly=on -device virtio-blk-device,drive=root \
             -blockdev driver=raw,node-name=slot0,read-only=on,file.driver=file,file.filename=slot0.img \
             -device virtio-blk-device,drive=slot0 -device virtio-net-device,netdev=net,mac=52:54:00:00:00:01"
        );
        let mut arguments: Vec<String> = line.split_ascii_whitespace().map(str::to_owned).collect();
        arguments.extend(["-append".to_owned(), boot, "-netdev".to_owned(), self.network(options)]);
        arguments
    }

    fn network(&self, options: &MachineOptions) -> String {
        let network = format!("user,id=net,ipv6=off,net={NETWORK},host={HOST}");
        match (options.metadata, &self.busybox) {
            (Some(port), Some(busybox)) => {
                format!("{network},guestfwd=tcp:{SERVICE}-cmd:{} nc 127.0.0.1 {port}", busybox.display())
            }
            _ => network,
        }
    }

    /// Writes a minimal root image, with a shell if there is a busybox.
    pub(crate) fn image(&self, path: &Path) {
        let mut tree = Tree::new(Meta::root(0o755));
        for dir in ["proc", "run"] {
            tree.put(dir, Meta::root(0o755), Kind::Directory).unwrap();
        }
        tree.put("dev/console", Meta::root(0o600), Kind::CharDevice { major: 5, minor: 1 }).unwrap();
        tree.put("dev/null", Meta::root(0o666), Kind::CharDevice { major: 1, minor: 3 }).unwrap();
        let program = |path: &Path| Kind::File(Source::Path(path.to_owned()));
        tree.put("nex-agent", Meta::root(0o555), program(Path::new(env!("CARGO_BIN_EXE_nex-agent")))).unwrap();
        if let Some(busybox) = &self.busybox {
            tree.put("bin/busybox", Meta::root(0o4755), program(busybox)).unwrap();
            tree.put("bin/sh", Meta::root(0o777), Kind::Symlink(b"busybox".to_vec())).unwrap();
        }
        tree.write(&mut File::create_new(path).unwrap(), &Options::default()).unwrap();
    }
}

fn on_path(name: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH")?;
    std::env::split_paths(&path).map(|dir| dir.join(name)).find(|file| file.is_file())
}

/// An identity with a network through which the guest reaches this host, and a clock set to the given time.
pub(crate) fn identity_message(identity: String, time: Duration) -> ToGuest {
    ToGuest::Identity(Box::new(GuestIdentity {
        identity,
        hostname: "vm-test".to_owned(),
        network: Some(GuestNetwork {
            mac: "52:54:00:ab:cd:ef".to_owned(),
            address: ADDRESS.parse().unwrap(),
            prefix: 16,
            gateway: HOST.parse().unwrap(),
            mtu: 1400,
            dns: Vec::new(),
        }),
        time_unix_nanos: u64::try_from(time.as_nanos()).unwrap(),
        entropy: data_encoding::BASE64.encode(&[42; 64]),
        limits: GuestLimits { uid: UID, processes: 256, open_files: 1024, file_bytes: 1 << 30, tmp_bytes: 16 << 20 },
        root: None,
    }))
}

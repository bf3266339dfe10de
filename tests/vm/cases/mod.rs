//! The cases, by name. Each is a promise; a failed assertion ends it.

mod patch;
mod points;
mod power;
mod recordings;
mod trouble;

use crate::log::Log;
use crate::ready::Ready;

/// One case.
pub struct Case {
    /// Its name on the command line and in the log folder.
    pub name: &'static str,
    /// What it shows.
    pub promise: &'static str,
    /// Whether the agent keeps it today.
    pub standing: Standing,
    /// Runs it; facts for the table.
    pub run: fn(&Ready, &Log) -> Vec<String>,
}

/// Whether a promise is kept today.
#[derive(Clone, Copy, Debug)]
pub enum Standing {
    /// A failure is a failure.
    Holds,
    /// It is known not to hold, for this reason. It is run and not counted as passed; when it holds, that is a failure too,
    /// until the mark is gone.
    #[expect(dead_code, reason = "all that is promised today holds")]
    NotYet(&'static str),
}

/// A node that makes thin restore points, and boots by itself where a rollback needs it.
const THIN: &str = "[restore]\nkind = \"lvm-thin\"\nrequired = true\n[reboot]\npolicy = \"if-needed\"\n";

/// The same with Timeshift.
const TIMESHIFT: &str =
    "[restore]\nkind = \"timeshift\"\nrequired = true\n[reboot]\npolicy = \"if-needed\"\n";

/// Every case, in the order in which they are run.
pub const CASES: &[Case] = &[
    Case {
        name: "patched-by-timers",
        promise: "a good bundle goes through by the units' own timers, with the link cut once it is staged",
        standing: Standing::Holds,
        run: patch::by_timers,
    },
    Case {
        name: "rollback-thin",
        promise: "an unhealthy bundle is rolled back by the thin restore point and a boot, told, and not tried again",
        standing: Standing::Holds,
        run: points::thin,
    },
    Case {
        name: "rollback-timeshift",
        promise: "the same with Timeshift's restore points on another disk",
        standing: Standing::Holds,
        run: points::timeshift,
    },
    Case {
        name: "rollback-failed-install",
        promise: "a bundle with a package that cannot be configured is undone by the restore point and a boot",
        standing: Standing::Holds,
        run: points::failed_install,
    },
    Case {
        name: "rollback-kernel",
        promise: "a kernel that came with an unhealthy bundle is gone from /boot and from the menu after the rollback",
        standing: Standing::Holds,
        run: points::kernel_case,
    },
    Case {
        name: "trouble-full-disk",
        promise: "a full disk defers the install and changes nothing",
        standing: Standing::Holds,
        run: trouble::full_disk,
    },
    Case {
        name: "trouble-read-only",
        promise: "a read-only root is told and changes nothing",
        standing: Standing::Holds,
        run: trouble::read_only,
    },
    Case {
        name: "trouble-full-boot",
        promise: "a kernel that does not fit into /boot leaves the node as it was",
        standing: Standing::Holds,
        run: trouble::full_boot,
    },
    Case {
        name: "trouble-small-pool",
        promise: "a thin pool without room for a restore point and the install defers it",
        standing: Standing::Holds,
        run: trouble::small_pool,
    },
    Case {
        name: "trouble-no-restore-point",
        promise: "a restore point that cannot be made defers the install",
        standing: Standing::Holds,
        run: trouble::no_restore_point,
    },
    Case {
        name: "trouble-silent-health",
        promise: "a health URL that hangs fails the check in its time, and the node is rolled back",
        standing: Standing::Holds,
        run: trouble::silent_health,
    },
    Case {
        name: "power-cuts",
        promise: "the power goes at any moment, and the node boots, tells the truth, loses no report, and ends patched or as it was",
        standing: Standing::Holds,
        run: power::cuts,
    },
    Case {
        name: "recordings-lvm",
        promise: "what LVM and systemd really say, kept for the tests of those who read it",
        standing: Standing::Holds,
        run: recordings::lvm,
    },
    Case {
        name: "recordings-timeshift",
        promise: "the same of Timeshift",
        standing: Standing::Holds,
        run: recordings::timeshift,
    },
];

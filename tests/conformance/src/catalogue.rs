//! What users of GPU sharing complain about, and which case answers it. `docs/conformance.md` is made from this table;
//! a test holds the two together, and checks that every case named here exists.

/// A group of complaints.
#[derive(Clone, Copy, Debug)]
pub struct Group {
    /// Its number, as case names and comments cite it.
    pub number: u32,
    /// What users say.
    pub complaint: &'static str,
    /// The cases.
    pub cases: &'static [Case],
    /// What no case covers yet, and why. Empty when nothing is known to be missing.
    pub missing: &'static str,
}

/// Where a case is, and which ways it runs.
#[derive(Clone, Copy, Debug)]
pub enum Case {
    /// A case of `conform transcript`: natively and under the hook, compared.
    Transcript(&'static str),
    /// A case of `conform limits`: under a quota.
    Limits(&'static str),
    /// A test, by file and function, and the ways it runs the program in.
    Test(&'static str, &'static str, Ways),
}

/// The ways a test runs programs in.
#[derive(Clone, Copy, Debug)]
pub struct Ways(pub &'static str);

const ALL: Ways = Ways("native, hook, limits");
const EVERYWHERE: Ways = Ways("native, hook, limits, remote");
const NATIVE_AND_HOOK: Ways = Ways("native, hook");
const HOOK: Ways = Ways("hook");
const LIMITS: Ways = Ways("limits");
const POLICY: Ways = Ways("policy alone, in virtual time");
const TABLE: Ways = Ways("the table alone");

use Case::{Limits, Test, Transcript};

const SUITE: &str = "tests/conformance/tests/suite.rs";
const CLIENTS: &str = "tests/conformance/tests/clients.rs";
const CRASH: &str = "tests/conformance/tests/crash.rs";
const ROUTES: &str = "tests/conformance/tests/routes.rs";
const VIEWS: &str = "tests/conformance/tests/views.rs";
const CENSUS: &str = "tests/e2e/tests/census.rs";
const MEMORY: &str = "tests/e2e/tests/memory.rs";
const COMPUTE: &str = "tests/e2e/tests/compute.rs";
const GRAPHS: &str = "tests/e2e/tests/graphs.rs";
const LIFE: &str = "tests/e2e/tests/lifecycle.rs";
const OBSERVE: &str = "tests/e2e/tests/observe.rs";
const ENFORCE: &str = "tests/e2e/tests/enforce.rs";
const LAWS: &str = "tests/compute-sim/tests/laws.rs";
const COVERAGE: &str = "abi/tests/coverage.rs";

/// The groups, all 25 in order.
pub const GROUPS: &[Group] = &[
    Group {
        number: 1,
        complaint: "a compute limit is ignored, or swings between all and nothing",
        cases: &[
            Test(COMPUTE, "two_saturating_tenants_get_their_shares_of_the_device", LIMITS),
            Test(COMPUTE, "a_hard_tenant_is_held_to_its_share_of_an_idle_device", LIMITS),
            Test(LAWS, "a_hard_cap_holds_in_every_tenth_of_a_second", POLICY),
        ],
        missing: "",
    },
    Group {
        number: 2,
        complaint: "many SMs defeat the compute limit",
        cases: &[Test(
            LAWS,
            "saturating_tenants_get_their_shares_whatever_their_kernels_streams_and_processes",
            POLICY,
        )],
        missing: "time is charged, not blocks, so the number of SMs enters nowhere; no case varies it",
    },
    Group {
        number: 3,
        complaint: "CUDA graphs escape the compute limit",
        cases: &[
            Transcript("3/a capture holds what was captured and nothing else"),
            Transcript("3/misuse of captures has the driver's own codes"),
            Transcript("3/graphs are built, nested, updated and taken apart"),
            Test(GRAPHS, "launches_of_a_graph_wait_at_the_gate_from_the_first_on", LIMITS),
            Test(GRAPHS, "nothing_of_ours_is_put_into_a_capture", LIMITS),
            Test(GRAPHS, "the_first_launches_of_a_thread_harm_no_capture_of_another", LIMITS),
        ],
        missing: "",
    },
    Group {
        number: 4,
        complaint: "newer launch calls escape the compute limit",
        cases: &[
            Transcript("4/cooperative launches that do not fit"),
            Transcript("4/a share of the SMs"),
            Test(COVERAGE, "no_export_of_a_real_driver_is_unknown", TABLE),
        ],
        missing: "",
    },
    Group {
        number: 5,
        complaint: "few huge kernels escape, small ones are held too long",
        cases: &[
            Test(COMPUTE, "kernels_of_different_lengths_do_not_shift_the_shares", LIMITS),
            Test(COMPUTE, "a_kernel_that_never_ends_is_flagged_and_the_others_run_on", LIMITS),
            Test(LAWS, "shares_hold_for_all_kernel_lengths", POLICY),
        ],
        missing: "",
    },
    Group {
        number: 6,
        complaint: "several GPUs: the first one's limit, or a wrong index, is used for all",
        cases: &[Test(VIEWS, "memory_is_charged_to_the_device_that_holds_it", ALL)],
        missing: "CUDA_VISIBLE_DEVICES and MIG are not simulated",
    },
    Group {
        number: 7,
        complaint: "collectives over several processes hang under a compute limit",
        cases: &[Test(COMPUTE, "results_are_right_and_nothing_is_lost_under_a_gate", LIMITS)],
        missing: "NCCL needs GPUs",
    },
    Group {
        number: 8,
        complaint: "stream-ordered and pooled memory: false refusals, or not counted",
        cases: &[
            Transcript("8/a pool keeps what its threshold lets it, and trim lowers it"),
            Limits("8/rounds of taking and giving leave nothing"),
            Limits("8/what a pool keeps makes room for others"),
            Test(SUITE, "random_operations_leave_no_drift", LIMITS),
        ],
        missing: "",
    },
    Group {
        number: 9,
        complaint: "a driver call that fails leaves its charge behind",
        cases: &[
            Test(SUITE, "a_driver_that_fails_leaves_the_books_as_they_were", LIMITS),
            Test(MEMORY, "a_driver_that_fails_leaves_no_charge", LIMITS),
        ],
        missing: "",
    },
    Group {
        number: 10,
        complaint: "virtual memory management: counted on the wrong device, too early, twice or never",
        cases: &[
            Transcript("10/physical memory lives until its last handle and its last mapping are gone"),
            Transcript("10/host memory is not device memory"),
            Transcript("10/an exported handle imported again is one allocation"),
            Transcript("10/graph memory is kept until it is trimmed"),
            Transcript("10/what a graph allocates and does not free is the program's"),
            Limits("10/mapped memory stays charged after its release"),
            Limits("10/an import charges nobody again"),
            Limits("10/a graph that does not fit does not run"),
            Limits("10/what lives in a context stays charged until its last user has gone"),
            Test(VIEWS, "memory_is_charged_to_the_device_that_holds_it", ALL),
        ],
        missing: "",
    },
    Group {
        number: 11,
        complaint: "crashes at null outputs and unknown flags",
        cases: &[Transcript("11/unknown and null arguments are the driver's business")],
        missing: "",
    },
    Group {
        number: 12,
        complaint: "a wrong error code for a full quota",
        cases: &[
            Limits("12/what does not fit is out of memory, exactly"),
            Limits("12/unit by unit to the last byte"),
            Limits("12/a refusal leaves the context usable"),
            Test(CLIENTS, "cudarc", EVERYWHERE),
            Test(CLIENTS, "cuda_bindings", EVERYWHERE),
            Test(CLIENTS, "numba", EVERYWHERE),
        ],
        missing: "the runtime library's own error state: it accepts NVIDIA's driver only",
    },
    Group {
        number: 13,
        complaint: "free memory below zero: 18 exabytes, or an error",
        cases: &[
            Limits("13/15/every view agrees after every step"),
            Test(VIEWS, "a_context_larger_than_the_quota_leaves_nothing_free", LIMITS),
            Test(LIFE, "a_quota_changes_under_running_programs", LIMITS),
        ],
        missing: "",
    },
    Group {
        number: 14,
        complaint: "a second process sees all of the quota free, or takes it once more",
        cases: &[
            Test(CRASH, "racing_programs_share_a_quota_to_the_last_byte", LIMITS),
            Test(CRASH, "threads_of_a_program_leave_no_drift", LIMITS),
            Test(MEMORY, "two_processes_of_a_tenant_share_one_quota", LIMITS),
        ],
        missing: "",
    },
    Group {
        number: 15,
        complaint: "CUDA and NVML disagree",
        cases: &[
            Transcript("15/every view shows the same total"),
            Limits("13/15/every view agrees after every step"),
            Test(MEMORY, "cuda_and_nvml_show_the_quota_and_agree", LIMITS),
            Test(CENSUS, "every_view_agrees_while_others_allocate", LIMITS),
            Test(VIEWS, "a_context_larger_than_the_quota_leaves_nothing_free", LIMITS),
        ],
        missing: "",
    },
    Group {
        number: 16,
        complaint: "pointer attributes are changed",
        cases: &[Transcript("16/pointer attributes pass unchanged")],
        missing: "",
    },
    Group {
        number: 17,
        complaint: "symbols of a newer CUDA are missed; an older driver fails to start",
        cases: &[
            Test(COVERAGE, "no_export_of_a_real_driver_is_unknown", TABLE),
            Test(ROUTES, "answers_by_version_are_the_drivers_own", ALL),
        ],
        missing: "",
    },
    Group {
        number: 18,
        complaint: "look-ups recurse, crash, or find a way around",
        cases: &[
            Test(ROUTES, "every_way_to_the_driver_meets_the_quota", ALL),
            Test(ROUTES, "a_program_linked_to_the_driver_meets_the_quota", ALL),
            Test(ROUTES, "layers_in_front_of_dlsym_do_not_recurse", LIMITS),
            Test(ROUTES, "a_deeply_bound_plugin_meets_the_quota", ALL),
            Test(ROUTES, "static_and_foreign_programs", LIMITS),
            Test(CLIENTS, "cuda_bindings", EVERYWHERE),
        ],
        missing: "RTLD_DEEPBIND goes around the hook (THREATS); static programs and musl cannot be preloaded",
    },
    Group {
        number: 19,
        complaint: "a process that died hangs the others, or keeps what it held",
        cases: &[
            Test(CRASH, "programs_killed_at_any_moment_leave_nothing", LIMITS),
            Test(LIFE, "a_killed_program_leaves_neither_seat_nor_memory", LIMITS),
            Test(LIFE, "programs_outlive_the_daemon_and_the_next_one_adopts_them", LIMITS),
            Test(CENSUS, "an_adopted_ledger_agrees_with_the_driver", LIMITS),
            Test(LIFE, "forks_execs_and_closed_descriptors_keep_the_books_right", LIMITS),
        ],
        missing: "",
    },
    Group {
        number: 20,
        complaint: "many processes that start at once wait for each other",
        cases: &[Test(CRASH, "a_crowd_that_starts_at_once_gets_its_seats", LIMITS)],
        missing: "",
    },
    Group {
        number: 21,
        complaint: "a process without the hook has no limits, and nobody notices",
        cases: &[
            Test(LIFE, "a_process_in_no_tenant_is_refused_or_gets_the_default_tenant", HOOK),
            Test(LIFE, "without_a_daemon_cuda_does_not_start", HOOK),
            Test(ENFORCE, "no_attested_hook_no_gpu", HOOK),
            Test(CENSUS, "a_process_without_the_hook_is_named", LIMITS),
            Test(CENSUS, "the_driver_holds_quotas_too_where_it_can", LIMITS),
        ],
        missing: "",
    },
    Group {
        number: 22,
        complaint: "a quota cannot be changed without a restart",
        cases: &[
            Test(LIFE, "a_quota_changes_under_running_programs", LIMITS),
            Test(COMPUTE, "a_new_share_takes_effect_under_running_programs", LIMITS),
        ],
        missing: "",
    },
    Group {
        number: 23,
        complaint: "nvidia-smi shows no processes, or fails",
        cases: &[Limits("23/only the tenant's own processes are listed")],
        missing: "",
    },
    Group {
        number: 24,
        complaint: "metrics are missing, or clash with others",
        cases: &[
            Test(OBSERVE, "the_metrics_page_tells_what_happened", LIMITS),
            Test(OBSERVE, "counters_survive_the_process_that_made_them", LIMITS),
        ],
        missing: "",
    },
    Group {
        number: 25,
        complaint: "sharing costs those who do not share",
        cases: &[
            Test(SUITE, "the_hook_changes_nothing_without_limits", NATIVE_AND_HOOK),
            Test(ROUTES, "off_means_the_drivers_own_pointers", ALL),
            Test(MEMORY, "an_unenforced_tenant_gets_the_drivers_own_answers", HOOK),
        ],
        missing: "peer access and NVLink are not simulated",
    },
];

/// The document.
#[must_use]
pub fn document() -> String {
    let mut text = String::from(HEAD);
    for group in GROUPS {
        text.push_str(&format!("\n## {}. {}\n\n", group.number, group.complaint));
        if !group.cases.is_empty() {
            text.push_str("| case | where | simulated GPU | real GPU |\n|---|---|---|---|\n");
        }
        for case in group.cases {
            let (name, place, ways) = match case {
                Transcript(name) => (*name, "`conform transcript`", NATIVE_AND_HOOK.0),
                Limits(name) => (*name, "`conform limits`", LIMITS.0),
                Test(file, function, Ways(ways)) => (*function, *file, *ways),
            };
            let place = if place.starts_with('`') { place.to_owned() } else { format!("`{place}`") };
            text.push_str(&format!("| {name} | {place} | {ways} | not yet verified |\n"));
        }
        if !group.missing.is_empty() {
            let space = if group.cases.is_empty() { "" } else { "\n" };
            text.push_str(&format!("{space}Not covered: {}.\n", group.missing));
        }
    }
    text
}

const HEAD: &str = "\
# Conformance

What users of GPU sharing complain about, in 25 groups gathered from the issue trackers of the programs that share GPUs
today, and the case that answers each. Made from `tests/conformance/src/catalogue.rs`
(`UPDATE=1 cargo test -p headgate-conformance --test catalogue`); a test keeps the two together and checks that every case exists.

`native` is the bare simulated device, which proves the device right; `hook` is under Headgate without limits, where nothing
may change; `limits` is under a quota, where exactly what does not fit is refused. `conform report` runs the cases of
`conform` on whatever driver there is, as JSON, on a GPU machine too. Real clients run the same three ways and, as `remote`, on a
borrowed device (`tests/conformance/tests/clients.rs`): cudarc, NVIDIA's cuda-bindings, Numba, kernels by nvcc and NVRTC. No case has been verified on
NVIDIA hardware yet.
";

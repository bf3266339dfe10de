//! The common suite: the same cases for each package manager. What they do stands in `lab::suite`.

use lab::backend::Backend;
use lab::suite::CASES;

macro_rules! common {
    ($($backend:ident: $of:expr;)*) => {$(
        mod $backend {
            fn run(number: usize) {
                let (name, case) = super::CASES[number];
                eprintln!("{name}: {:?}", case($of));
            }

            #[test]
            fn a_node_is_patched_without_a_network() {
                run(0);
            }

            #[test]
            fn a_second_run_does_nothing() {
                run(1);
            }

            #[test]
            fn an_update_whose_dependency_is_missing_is_kept_back_and_named() {
                run(2);
            }

            #[test]
            fn a_failing_pre_script_is_told_and_not_repeated() {
                run(3);
            }

            #[test]
            fn a_failing_post_script_is_told_and_not_repeated() {
                run(4);
            }

            #[test]
            fn a_package_damaged_on_the_mirror_is_refused() {
                run(5);
            }

            #[test]
            fn a_package_altered_on_the_node_is_refused() {
                run(6);
            }

            #[test]
            fn a_package_that_is_gone_defers_the_install() {
                run(7);
            }

            #[test]
            fn a_held_package_is_kept_back_and_named() {
                run(8);
            }

            #[test]
            fn a_changed_config_file_is_kept() {
                run(9);
            }

            #[test]
            fn a_lock_that_is_held_defers_the_install() {
                run(10);
            }

            #[test]
            fn an_install_of_which_everything_was_killed_is_mended_and_finished() {
                run(11);
            }

            #[test]
            fn a_package_manager_whose_agent_was_killed_is_waited_for() {
                run(12);
            }

            #[test]
            fn a_failed_install_is_undone_with_the_packages_that_are_kept() {
                run(13);
            }

            #[test]
            fn a_node_that_is_unhealthy_afterwards_goes_back_with_the_packages_that_are_kept() {
                run(14);
            }

            #[test]
            fn a_way_back_that_was_cut_is_gone_to_its_end() {
                run(15);
            }

            #[test]
            fn a_first_install_is_undone_with_what_the_package_manager_has_in_its_cache() {
                run(16);
            }

            #[test]
            fn without_the_file_of_each_version_nothing_is_put_back() {
                run(17);
            }
        }
    )*};
}

common! {
    apt: super::Backend::Apt;
    dnf: super::Backend::Dnf;
}

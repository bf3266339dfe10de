//! Publication cut off at every step: a node sees a whole repository at each moment, and the next run completes it.

use std::cell::RefCell;
use std::fs;
use std::path::Path;

use format::index::Family;
use format::name::TargetPath;
use tempfile::TempDir;

use super::*;
use crate::bundle;
use crate::check::{self, Problem};
use crate::collect::Collected;
use crate::delegated::{BUNDLES, POLICIES};
use crate::editor::Release;
use crate::keys::Public;
use crate::pending::PENDING_ROLES;
use crate::roles::{FirstRoot, RoleEdit, RoleSpec};

const NOW: UnixTime = UnixTime(1_795_411_753);

struct World {
    folder: TempDir,
    offline: Vec<Secret>,
    snapshot: Secret,
    timestamp: Secret,
    /// Signs timestamps instead of all others, once it is set.
    stranger: RefCell<Option<Secret>>,
}

/// What a publication will change.
type Change<'c> = &'c dyn Fn(&World, &mut RepositoryEditor) -> Vec<PathBuf>;

impl World {
    /// A repository with bundle 1 in it.
    fn new() -> Self {
        let world = World {
            folder: TempDir::new().unwrap(),
            offline: (0..3).map(|_| Secret::generate().unwrap()).collect(),
            snapshot: Secret::generate().unwrap(),
            timestamp: Secret::generate().unwrap(),
            stranger: RefCell::new(None),
        };
        let spec = |role, key: &Secret| RoleSpec { role, keys: vec![key.public().clone()], threshold: 1 };
        let first = FirstRoot {
            top_level: vec![
                spec("root", &world.offline[0]),
                spec("targets", &world.offline[1]),
                spec("snapshot", &world.snapshot),
                spec("timestamp", &world.timestamp),
            ],
            days: [365, 365],
            delegated: vec![(&BUNDLES, spec("bundles", &world.offline[2]), 90)],
        };
        let mut editor = RepositoryEditor::create(world.repository(), &first, NOW).unwrap();
        let out = world.add_bundle(&mut editor, "1");
        world.sign(&mut editor);
        world.publish(editor, &[out], &mut world.repository()).unwrap();
        world
    }

    fn repository(&self) -> Repository {
        Repository::at(&self.folder.path().join("repo"))
    }

    fn editor(&self) -> RepositoryEditor {
        RepositoryEditor::open(self.repository()).unwrap()
    }

    fn add_bundle(&self, editor: &mut RepositoryEditor, version: &str) -> PathBuf {
        let (out, release) = self.make_bundle(version);
        assert!(editor.add_release(&release, 90, NOW).unwrap());
        out
    }

    fn make_bundle(&self, version: &str) -> (PathBuf, Release) {
        let out = self.folder.path().join(format!("out-{version}"));
        let collected = Collected {
            api_version: format::API_VERSION.into(),
            kind: crate::collect::KIND.into(),
            variant: "debian-12-amd64".parse().unwrap(),
            family: Family::Apt,
            architecture: "amd64".into(),
            created: NOW,
            security_only: false,
            releases: Vec::new(),
            inventories: Vec::new(),
            packages: Vec::new(),
            modules: Vec::new(),
        };
        let (version, cycle) = (version.parse().unwrap(), "c".parse().unwrap());
        let index =
            bundle::write(&collected, &out, &version, &cycle, &out, &Default::default(), Progress::Quiet)
                .unwrap();
        let bytes = fs::read(out.join(bundle::INDEX)).unwrap();
        let entry = |length, sha256| json!({"length": length, "hashes": {"sha256": sha256}});
        let release = Release {
            index: (
                format!("bundles/debian-12-amd64/{version}/index.json"),
                entry(bytes.len() as u64, Sha256::of(&bytes)),
            ),
            bundle: (index.bundle.path.to_string(), entry(index.bundle.length, index.bundle.sha256)),
            prefix: "bundles/debian-12-amd64/".into(),
            cycle,
        };
        (out, release)
    }

    fn sign(&self, editor: &mut RepositoryEditor) {
        for key in &self.offline {
            // A key that belongs to nothing pending is refused, which is fine here.
            let _ = editor.sign(&PENDING_ROLES, &[key]);
        }
    }

    fn publish(&self, mut editor: RepositoryEditor, outs: &[PathBuf], store: &mut dyn Store) -> Result<()> {
        let all = |key| [key].into_iter().chain(&self.offline).cloned().collect();
        let keys = OnlineKeys {
            snapshot: all(&self.snapshot),
            timestamp: match &*self.stranger.borrow() {
                Some(key) => vec![key.clone()],
                None => all(&self.timestamp),
            },
            snapshot_days: 14,
            timestamp_days: 14,
        };
        let plan = plan(&editor, outs, &keys, NOW)?;
        perform(&plan, store, Progress::Quiet)?;
        editor.clear()
    }

    /// Policies to be listed: target path → content, which is put into a folder to be published from.
    fn policies(&self, files: &[(&str, &str)]) -> (PathBuf, BTreeMap<TargetPath, (u64, Sha256)>) {
        let out = self.folder.path().join("policies-out");
        let listed = files.iter().map(|(path, content)| {
            let file = out.join(path);
            fs::create_dir_all(file.parent().unwrap()).unwrap();
            fs::write(file, content).unwrap();
            (path.parse().unwrap(), (content.len() as u64, Sha256::of(content.as_bytes())))
        });
        let listed = listed.collect();
        (out, listed)
    }

    /// What a node sees; every target that it may ask for is there and right.
    fn node(&self) -> std::result::Result<View, String> {
        let view = repository::load(&self.repository(), 1, NOW).map_err(|e| e.to_string())?;
        for (_, path, file) in view.listed() {
            let path: TargetPath = path.parse().unwrap();
            let file = file.blob().unwrap();
            let content =
                fs::read(self.repository().targets().join(path.with_digest(&file.sha256.to_string())));
            if Sha256::of(&content.map_err(|e| format!("{path}: {e}"))?) != file.sha256 {
                return Err(format!("{path} is damaged"));
            }
        }
        Ok(view)
    }
}

/// Fails at the n-th write, and leaves behind what a kill there would leave.
struct Failing {
    repository: Repository,
    left: usize,
}

impl Store for Failing {
    fn put(&mut self, step: &Step) -> Result<()> {
        if self.left > 0 {
            self.left -= 1;
            return self.repository.put(step);
        }
        let to = match step {
            Step::Target { to, .. } => self.repository.targets().join(to),
            Step::Metadata { name, .. } => self.repository.metadata().join(name),
        };
        let name = to.file_name().unwrap().to_string_lossy();
        fs::create_dir_all(to.parent().unwrap()).unwrap();
        fs::write(to.with_file_name(format!(".{name}.new")), "half").unwrap();
        Err(Error::new(Kind::Io, "cut off", "by the test"))
    }
}

fn is_half(path: &Path) -> bool {
    path.file_name().is_some_and(|n| n.to_string_lossy().ends_with(".new"))
}

/// Cuts the publication of `change` off at each step and completes it; returns how many steps there were.
fn cut_off_everywhere(change: Change<'_>, gap_is_allowed: bool) -> usize {
    for cut in 0.. {
        let world = World::new();
        let mut editor = world.editor();
        let outs = change(&world, &mut editor);
        world.sign(&mut editor);
        let wanted = editor.effective(BUNDLES.name).unwrap().version();
        let wanted_root = editor.effective("root").unwrap().version();
        let mut store = Failing { repository: world.repository(), left: cut };
        let done = world.publish(editor, &outs, &mut store).is_ok();
        if !gap_is_allowed {
            world.node().unwrap_or_else(|e| panic!("cut at {cut}: {e}"));
        }
        if !done {
            // A new process, later.
            let editor = world.editor();
            world
                .publish(editor, &outs, &mut world.repository())
                .unwrap_or_else(|e| panic!("cut at {cut}: {e}"));
        }
        let view = world.node().unwrap_or_else(|e| panic!("completed after {cut}: {e}"));
        assert_eq!(view.bundles().unwrap().header.version, wanted, "cut at {cut}");
        assert_eq!(view.set.root().header.version, wanted_root, "cut at {cut}");
        assert!(world.editor().pending().documents().is_empty());
        let metadata: Vec<PathBuf> =
            fs::read_dir(world.repository().metadata()).unwrap().map(|e| e.unwrap().path()).collect();
        assert!(done || metadata.iter().filter(|p| is_half(p)).count() <= 1);
        if done {
            return cut;
        }
    }
    unreachable!()
}

fn rotate_key(editor: &mut RepositoryEditor, role: &str, old: &str, new: &Public) {
    editor.edit_role(role, &RoleEdit::Rotate(old.to_owned(), new.clone()), 365, NOW).unwrap();
}

#[test]
fn a_new_bundle_survives_a_cut_at_every_step() {
    let steps = cut_off_everywhere(&|world, editor| vec![world.add_bundle(editor, "2")], false);
    assert_eq!(steps, 5, "index, bundle, bundles, snapshot, timestamp");
}

#[test]
fn a_rotated_bundles_key_and_a_new_bundle_survive_a_cut_at_every_step() {
    let rotate = |world: &World, editor: &mut RepositoryEditor| {
        let old = world.offline[2].public().id.0.clone();
        rotate_key(editor, BUNDLES.name, &old, world.offline[0].public());
        vec![world.add_bundle(editor, "2")]
    };
    assert_eq!(cut_off_everywhere(&rotate, false), 6);
}

#[test]
fn rotated_online_keys_survive_a_cut_at_every_step_and_no_node_is_turned_away_if_the_old_ones_sign_once_more()
{
    let rotate = |world: &World, editor: &mut RepositoryEditor| {
        for (role, old, new) in [
            ("timestamp", &world.timestamp, &world.offline[1]),
            ("snapshot", &world.snapshot, &world.offline[2]),
        ] {
            rotate_key(editor, role, &old.public().id.0, new.public());
        }
        Vec::new()
    };
    assert_eq!(cut_off_everywhere(&rotate, false), 3, "snapshot, timestamp, root last");
}

#[test]
fn a_rotated_root_key_survives_a_cut_at_every_step() {
    let rotate = |world: &World, editor: &mut RepositoryEditor| {
        let old = world.offline[0].public().id.0.clone();
        rotate_key(editor, "root", &old, world.offline[1].public());
        vec![world.add_bundle(editor, "2")]
    };
    cut_off_everywhere(&rotate, false);
}

#[test]
fn an_expired_role_is_not_published_and_nothing_is_written() {
    let world = World::new();
    let mut editor = world.editor();
    let out = world.add_bundle(&mut editor, "2");
    world.sign(&mut editor);
    let before = fs::read(world.repository().metadata().join("timestamp.json")).unwrap();
    let keys = OnlineKeys {
        snapshot: vec![world.snapshot.clone()],
        timestamp: vec![world.timestamp.clone()],
        snapshot_days: 14,
        timestamp_days: 0,
    };
    let error = plan(&editor, &[out], &keys, NOW).unwrap_err();
    assert!(error.to_string().contains("expired"), "{error}");
    assert_eq!(fs::read(world.repository().metadata().join("timestamp.json")).unwrap(), before);
}

/// A new key for timestamp that alone signs from now on, as after a theft.
fn replace_timestamp_key(world: &World, editor: &mut RepositoryEditor) {
    let new = Secret::generate().unwrap();
    let old = &world.timestamp.public().id.0;
    rotate_key(editor, "timestamp", old, new.public());
    world.stranger.replace(Some(new));
}

#[test]
fn a_stolen_timestamp_key_is_replaced_through_a_cut_at_every_step() {
    let rotate = |world: &World, editor: &mut RepositoryEditor| {
        replace_timestamp_key(world, editor);
        vec![world.add_bundle(editor, "2")]
    };
    cut_off_everywhere(&rotate, true);
}

#[test]
fn a_root_that_is_there_is_never_replaced_by_another_of_its_version() {
    let world = World::new();
    let mut editor = world.editor();
    replace_timestamp_key(&world, &mut editor);
    world.sign(&mut editor);
    // Cut off with only the root in place, which the published timestamp does not fit.
    let root = editor.effective("root").unwrap().to_bytes().unwrap();
    fs::write(world.repository().metadata().join("2.root.json"), root).unwrap();
    drop(editor);
    let mut editor = world.editor();
    let error =
        editor.edit_role("root", &RoleEdit::Add(world.offline[1].public().clone()), 365, NOW).unwrap_err();
    assert!(error.to_string().contains("run publish again"), "{error}");
    world.publish(editor, &[], &mut world.repository()).unwrap();
    assert_eq!(world.node().unwrap().set.root().header.version, 2);
}

#[test]
fn check_tells_every_role_that_has_expired() {
    let world = World::new();
    let report = check::check(&world.repository(), true, NOW, Progress::Quiet).unwrap();
    assert!(report.problems.is_empty(), "{:?}", report.problems);
    let later = NOW.plus(400 * 86_400);
    let report = check::check(&world.repository(), true, later, Progress::Quiet).unwrap();
    let expired = report.problems.iter().filter(|p| matches!(p, Problem::Expired { .. }));
    assert_eq!(expired.count(), 5, "{:?}", report.problems);
}

#[test]
fn check_tells_an_index_of_another_bundle_even_if_both_are_signed() {
    let world = World::new();
    let (out, mut release) = world.make_bundle("2");
    let other = b"something else";
    fs::write(out.join(bundle::BUNDLE), other).unwrap();
    release.bundle.1 = json!({"length": other.len(), "hashes": {"sha256": Sha256::of(other)}});
    let mut editor = world.editor();
    editor.add_release(&release, 90, NOW).unwrap();
    world.sign(&mut editor);
    world.publish(editor, &[out], &mut world.repository()).unwrap();
    let report = check::check(&world.repository(), false, NOW, Progress::Quiet).unwrap();
    assert!(matches!(report.problems[..], [Problem::Index { .. }]), "{:?}", report.problems);
}

/// Two policies of one name in two namespaces.
const TWO: [(&str, &str); 2] = [
    ("policies/operations/edge/policy.json", "{\"a\":1}"),
    ("policies/testing/edge/policy.json", "{\"a\":2}"),
];

fn add_policies_role(world: &World, editor: &mut RepositoryEditor) {
    let add = RoleEdit::Add(world.offline[0].public().clone());
    editor.edit_role(POLICIES.name, &add, 365, NOW).unwrap();
}

#[test]
fn a_repository_without_the_policies_role_says_nothing_of_it() {
    let world = World::new();
    let view = world.node().unwrap();
    let snapshot = Signed::parse("snapshot", view.bytes("snapshot").unwrap()).unwrap();
    let listed: Vec<&String> = snapshot.signed()["meta"].as_object().unwrap().keys().collect();
    assert_eq!(listed, ["bundles.json", "targets.json"]);
    assert_eq!(view.set.targets("targets").unwrap().delegations.len(), 1);
    let mut editor = world.editor();
    let error = editor.set_policies(&BTreeMap::new(), 90, NOW).unwrap_err();
    assert!(error.to_string().contains("root add-key --role policies"), "{error}");
    let rotate = RoleEdit::Rotate(String::new(), world.offline[0].public().clone());
    let error = editor.edit_role(POLICIES.name, &rotate, 365, NOW).unwrap_err();
    assert!(error.to_string().contains("root add-key --role policies"), "{error}");
}

#[test]
fn a_policies_role_that_is_made_later_and_its_first_policies_survive_a_cut_at_every_step() {
    let make = |world: &World, editor: &mut RepositoryEditor| {
        add_policies_role(world, editor);
        let (out, listed) = world.policies(&TWO);
        assert!(editor.set_policies(&listed, 90, NOW).unwrap());
        vec![out]
    };
    assert_eq!(cut_off_everywhere(&make, false), 6, "two policies, targets, policies, snapshot, timestamp");
}

#[test]
fn a_policies_role_whose_making_was_cut_off_is_made_by_doing_it_again() {
    let world = World::new();
    let mut editor = world.editor();
    add_policies_role(&world, &mut editor);
    drop(editor);
    fs::remove_file(world.folder.path().join("repo.pending/targets.json")).unwrap();
    let mut editor = world.editor();
    let error = editor.approvals().unwrap_err();
    assert!(error.to_string().contains("root add-key --role policies"), "{error}");
    add_policies_role(&world, &mut editor);
    world.sign(&mut editor);
    world.publish(editor, &[], &mut world.repository()).unwrap();
    assert!(world.node().unwrap().set.targets(POLICIES.name).unwrap().targets.is_empty());
}

#[test]
fn policies_list_exactly_what_was_set_and_nothing_outside_their_place() {
    let world = World::new();
    let mut editor = world.editor();
    add_policies_role(&world, &mut editor);
    let (out, listed) = world.policies(&TWO);
    assert!(editor.set_policies(&listed, 90, NOW).unwrap());
    assert!(!editor.set_policies(&listed, 30, NOW).unwrap(), "the same again changes nothing");
    world.sign(&mut editor);
    world.publish(editor, &[out], &mut world.repository()).unwrap();
    let names = |world: &World| -> Vec<String> {
        world.node().unwrap().set.targets(POLICIES.name).unwrap().targets.keys().cloned().collect()
    };
    assert_eq!(names(&world), TWO.map(|(path, _)| path));

    let mut editor = world.editor();
    assert!(!editor.set_policies(&listed, 90, NOW).unwrap(), "it is published already");
    for foreign in ["policies/edge.json", "policies/a/policy.json", "bundles/debian-12-amd64/1/index.json"] {
        let (_, listed) = world.policies(&[(foreign, "{}")]);
        let error = editor.set_policies(&listed, 90, NOW).unwrap_err();
        assert!(error.to_string().contains("policies/*/*/*"), "{error}");
    }
    let (_, only_one) = world.policies(&TWO[1..]);
    assert!(editor.set_policies(&only_one, 90, NOW).unwrap());
    world.sign(&mut editor);
    world.publish(editor, &[], &mut world.repository()).unwrap();
    assert_eq!(names(&world), ["policies/testing/edge/policy.json"]);
}

#[test]
fn a_policy_that_is_nowhere_to_be_found_is_not_published() {
    let world = World::new();
    let mut editor = world.editor();
    add_policies_role(&world, &mut editor);
    let (out, listed) = world.policies(&TWO);
    editor.set_policies(&listed, 90, NOW).unwrap();
    world.sign(&mut editor);
    fs::write(out.join(TWO[1].0), "{\"a\":3}").unwrap();
    let error = world.publish(editor, &[out], &mut world.repository()).unwrap_err();
    assert!(error.to_string().contains("policies/testing/edge/policy.json"), "{error}");
    assert!(world.node().unwrap().set.targets(POLICIES.name).is_none());
}

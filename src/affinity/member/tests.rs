//! Tests of members.

use super::{
    super::{Affinity, Roster},
    *,
};

fn member() -> Member {
    Member::new("app-1", Slot::new(3), 2)
}

fn second(second: u32) -> Tick {
    Tick::new(second * 10)
}

const SLOW_START: Duration = Duration::from_secs(90);

#[test]
fn a_new_member_is_up_and_takes_sessions_at_its_full_share() {
    let member = member();
    assert!(member.is_up() && member.takes_new() && member.serves_home());
    assert_eq!(member.share(SLOW_START, Tick::ZERO), FULL_SHARE);
    assert_eq!((member.name(), member.slot().get(), member.weight()), ("app-1", 3, 2));
}

#[test]
fn a_setter_says_whether_it_changed_anything() {
    let member = member();
    assert!(!member.set_up(true, Tick::ZERO));
    assert!(member.set_up(false, Tick::ZERO));
    assert!(!member.set_up(false, Tick::ZERO));
    assert!(!member.set_admin(Admin::Ready, Tick::ZERO));
    assert!(member.set_admin(Admin::Draining, Tick::ZERO));
}

#[test]
fn up_admin_and_generation_do_not_disturb_each_other() {
    let member = member();
    for (generation, admin) in (1..).zip(Admin::ALL.into_iter().cycle().take(9)) {
        member.bump_generation(Tick::ZERO);
        member.set_admin(admin, Tick::ZERO);
        for up in [false, true] {
            member.set_up(up, Tick::ZERO);
            assert_eq!((member.is_up(), member.admin(), member.generation()), (up, admin, generation));
            assert_eq!(member.takes_new(), up && admin == Admin::Ready);
            assert_eq!(member.serves_home(), up && admin != Admin::Maintenance);
        }
    }
}

#[test]
fn a_generation_wraps_around() {
    let member = member();
    for _ in 0..=u16::MAX {
        member.bump_generation(Tick::ZERO);
    }
    assert_eq!(member.generation(), 0);
    assert!(member.takes_new());
}

#[test]
fn a_new_generation_ramps_up_linearly() {
    let member = member();
    member.bump_generation(second(100));
    for (at, share) in [(90, 100), (100, 100), (110, 200), (145, 550), (189, 990), (190, 1_000), (900, 1_000)]
    {
        assert_eq!(member.share(SLOW_START, second(at)), share, "at second {at}");
    }
    assert_eq!(member.share(Duration::ZERO, second(100)), FULL_SHARE, "no slow start configured");
}

#[test]
fn a_member_that_joins_a_running_pool_ramps_up() {
    let member = member();
    member.start_ramp(Tick::ZERO);
    assert_eq!(member.share(SLOW_START, Tick::ZERO), FIRST_SHARE);
    assert_eq!(member.generation(), 0);
}

#[test]
fn a_member_that_was_down_or_in_maintenance_ramps_up_when_it_returns() {
    let member = member();
    member.set_up(false, second(1));
    member.set_up(true, second(2));
    assert_eq!(member.share(SLOW_START, second(2)), FIRST_SHARE);
    member.set_up(true, second(100));
    assert_eq!(member.share(SLOW_START, second(100)), FULL_SHARE, "it was up");
    member.set_admin(Admin::Maintenance, second(200));
    member.set_admin(Admin::Ready, second(201));
    assert_eq!(member.share(SLOW_START, second(201)), FIRST_SHARE);
}

#[test]
fn the_end_of_a_drain_is_no_slow_start() {
    let member = member();
    member.set_admin(Admin::Draining, second(1));
    member.set_admin(Admin::Ready, second(2));
    assert_eq!(member.share(SLOW_START, second(2)), FULL_SHARE);
}

#[test]
fn a_ramp_begins_only_when_sessions_are_taken_again() {
    let member = member();
    member.set_admin(Admin::Maintenance, second(1));
    member.set_up(false, second(2));
    member.bump_generation(second(3));
    member.set_up(true, second(4));
    member.set_admin(Admin::Ready, second(500));
    assert_eq!(member.share(SLOW_START, second(500)), FIRST_SHARE);
    assert_eq!(member.share(SLOW_START, second(600)), FULL_SHARE);
}

#[test]
fn counters_go_up_and_down() {
    let member = member();
    member.enter();
    member.enter();
    member.leave();
    member.begin_placing();
    member.add_live(5);
    member.add_live(-2);
    member.set_sessions(member.live().into(), 2);
    member.add_streams(1);
    let read = [member.in_flight(), member.placing(), member.live(), member.retained(), member.streams()];
    assert_eq!(read, [1, 1, 3, 2, 1]);
    member.end_placing();
    assert_eq!(member.placing(), 0);
}

#[test]
fn a_member_prints_its_name_and_state() {
    let printed = format!("{:?}", member());
    assert!(printed.contains("app-1") && printed.contains("up: true"), "{printed}");
}

#[test]
fn a_member_with_another_name_is_found_by_both_until_another_has_the_old_one() {
    let affinity = Affinity::new(Tick::ZERO);
    let roster = |names: &[&str]| {
        let list: Vec<_> = names.iter().map(|name| (*name, 1)).collect();
        affinity.roster(&list, Duration::from_secs(60), Tick::ZERO)
    };
    let before = roster(&["a", "b"]);
    let slot = |roster: &Roster, name: &str| roster.named(name).map(|member| member.slot().get());
    affinity.rename_members(&[("a", "c")], Tick::ZERO);
    let now = roster(&["c", "b"]);
    assert_eq!((slot(&now, "c"), slot(&now, "a"), slot(&now, "b")), (Some(0), Some(0), Some(1)));
    assert_eq!(slot(&before, "c"), Some(0), "requests under way know it, too");
    let now = roster(&["c", "b", "a"]);
    assert_eq!((slot(&now, "c"), slot(&now, "a")), (Some(0), Some(2)));
    affinity.rename_members(&[("b", "c"), ("c", "b")], Tick::ZERO);
    let now = roster(&["c", "b", "a"]);
    assert_eq!((slot(&now, "c"), slot(&now, "b")), (Some(1), Some(0)));
}

//! The life of a workload, step by step and in whatever order things happen.

use proptest::prelude::*;

use super::*;

fn any_event() -> impl Strategy<Value = Event> {
    prop_oneof![
        Just(Event::Adopted),
        Just(Event::AdoptFailed),
        Just(Event::Started),
        Just(Event::Healthy),
        Just(Event::Overdue),
        (0_u64..100).prop_map(|s| Event::Sick { ran: Duration::from_secs(s) }),
        Just(Event::StartFailed),
        Just(Event::Recorded),
        Just(Event::RecordFailed),
        (any::<bool>(), 0_u64..100).prop_map(|(failed, s)| Event::Ended { failed, ran: Duration::from_secs(s) }),
        (0_u64..100).prop_map(|s| Event::AgentLost { ran: Duration::from_secs(s) }),
        Just(Event::BackoffOver),
        Just(Event::Stop),
        Just(Event::Undeployed),
        Just(Event::LameDuck),
    ]
}

fn running(state: State) -> State {
    state.step(&Event::Started).0.step(&Event::Recorded).0
}

fn rules(restart: Restart) -> Rules {
    Rules::new(restart)
}

fn on_failure() -> State {
    State::new(rules(Restart::OnFailure))
}

fn exit(failed: bool) -> Event {
    Event::Ended { failed, ran: Duration::ZERO }
}

#[test]
fn failures_soon_after_the_start_wait_longer_each_time_and_a_proven_run_resets_that() {
    let mut state = running(on_failure());
    let fail = |state: State, ran| {
        let (state, effects) = state.step(&Event::Ended { failed: true, ran: Duration::from_secs(ran) });
        let Some(Effect::BackOff(pause)) = effects.first().copied() else { panic!("{effects:?}") };
        (running(state.step(&Event::BackoffOver).0), pause.as_millis())
    };
    let mut pauses = Vec::new();
    for ran in [1, 1, 1, 61, 1] {
        let (next, pause) = fail(state, ran);
        state = next;
        pauses.push(pause);
    }
    let full = [500, 1_000, 2_000, 500, 1_000];
    assert!(pauses.iter().zip(full).all(|(pause, full)| (full * 3 / 4..=full).contains(pause)), "{pauses:?}");
    assert_eq!(state.restarts, 5);
}

#[test]
fn an_exit_of_zero_is_final_even_where_restarts_are_allowed() {
    let (state, effects) = running(on_failure()).step(&exit(false));
    assert_eq!((state.phase, effects), (Phase::Stopped, vec![Effect::Retire, Effect::Release]));
    let (state, effects) = running(State::new(rules(Restart::Always))).step(&exit(false));
    assert!(state.phase == Phase::BackingOff && matches!(effects[..], [Effect::BackOff(_), Effect::Release]), "{effects:?}");
}

#[test]
fn a_job_is_tried_so_often_and_what_nobody_knows_the_outcome_of_was_a_try() {
    let job = Rules { retries: Some(1), ..rules(Restart::OnFailure) };
    let (state, _) = running(State::new(job)).step(&exit(true));
    assert_eq!(state.phase, Phase::BackingOff);
    let (state, effects) = running(state.step(&Event::BackoffOver).0).step(&exit(true));
    assert_eq!((state.phase, effects), (Phase::Stopped, vec![Effect::Retire, Effect::Release]));
    let (state, _) = State::left_running(job).step(&Event::AdoptFailed);
    assert_eq!(state.phase, Phase::BackingOff);
    let (_, effects) = State::left_running(job).counting(1, 1).step(&Event::AdoptFailed);
    assert_eq!(effects, [Effect::Retire]);
}

#[test]
fn what_has_a_health_check_is_told_when_it_passes_and_ended_when_it_fails() {
    let gated = Rules { is_gated: true, ..rules(Restart::OnFailure) };
    let (checking, effects) = State::new(gated).step(&Event::Started);
    assert_eq!((checking.phase, effects), (Phase::Checking, vec![Effect::AwaitHealth]));
    let (recovering, effects) = checking.clone().step(&Event::Overdue);
    assert_eq!(effects, [Effect::Undeploy]);
    assert_eq!(recovering.step(&Event::Undeployed).1, [Effect::Reject], "nobody was told that it runs");
    assert_eq!(checking.clone().step(&exit(false)).1, [Effect::Reject, Effect::Release], "it ended before it was well");
    let (recording, effects) = checking.step(&Event::Healthy);
    assert_eq!(effects, [Effect::Record]);
    let (recovering, effects) = recording.step(&Event::Recorded).0.step(&Event::Sick { ran: Duration::ZERO });
    assert_eq!((recovering.phase, effects), (Phase::Recovering, vec![Effect::Undeploy]));
    assert_eq!(recovering.clone().step(&Event::Stop).0.step(&Event::Undeployed).1, [Effect::Retire]);
    let (again, effects) = recovering.step(&Event::Undeployed);
    assert!(matches!(effects[..], [Effect::BackOff(_)]), "{effects:?}");
    let (checking, _) = again.step(&Event::BackoffOver).0.step(&Event::Started);
    let effects = checking.step(&Event::Overdue).0.step(&Event::Undeployed).1;
    assert!(matches!(effects[..], [Effect::BackOff(_)]), "what was accepted is tried again: {effects:?}");
}

#[test]
fn a_pause_goes_on_where_an_earlier_process_left_it() {
    let state = State::backing_off(rules(Restart::Always)).counting(7, 3);
    let pause = rules(Restart::Always).pause(3);
    assert_eq!(state.first_effect(Duration::ZERO), Effect::BackOff(pause));
    assert_eq!(state.first_effect(pause / 2), Effect::BackOff(pause - pause / 2));
    assert_eq!(state.first_effect(pause * 9), Effect::BackOff(Duration::ZERO));
    assert_eq!(state.step(&Event::BackoffOver).0.restarts, 8);
}

#[test]
fn what_an_earlier_process_accepted_is_tried_again_until_it_runs() {
    let mut state = State::restored(rules(Restart::Never));
    for _ in 0..20 {
        let (failed, effects) = state.step(&Event::StartFailed);
        assert!(matches!(effects.as_slice(), [Effect::BackOff(_)]), "{effects:?}");
        state = failed.step(&Event::BackoffOver).0;
    }
    let (state, effects) = state.step(&Event::Started).0.step(&Event::Recorded);
    assert_eq!(effects, [Effect::Announce]);
    let (_, effects) = state.step(&Event::AgentLost { ran: Duration::ZERO });
    assert_eq!(effects, [Effect::ReportAgentLost, Effect::Release, Effect::Retire], "from then on it is as any other");
}

#[test]
fn what_is_taken_over_was_announced_before_and_what_is_not_starts_anew() {
    let left = State::left_running(rules(Restart::Always));
    assert_eq!(left.first_effect(Duration::ZERO), Effect::Adopt);
    let (adopted, effects) = left.clone().step(&Event::Adopted);
    assert_eq!((adopted.phase, effects), (Phase::Running, Vec::new()));
    let (failed, effects) = left.clone().step(&Event::AdoptFailed);
    assert_eq!((&failed, effects), (&State::restored(rules(Restart::Always)), vec![Effect::Start]));
    let (stopping, effects) = left.step(&Event::Stop);
    assert_eq!(effects, [], "it is not known yet what there is to stop");
    assert_eq!(stopping.clone().step(&Event::Adopted).1, [Effect::Undeploy]);
    assert_eq!(stopping.step(&Event::AdoptFailed).1, [Effect::Retire]);
}

#[test]
fn what_the_journal_does_not_take_is_not_accepted() {
    let (state, effects) = on_failure().step(&Event::Started).0.step(&Event::RecordFailed);
    assert_eq!(effects, [Effect::Undeploy]);
    assert_eq!(state.step(&Event::Undeployed).1, [Effect::Reject]);
}

proptest! {
    /// Whatever happens in whatever order: announced once, ended once, and stopped for ever.
    #[test]
    fn every_accepted_workload_ends_in_exactly_one_retirement(
        begun in 0_usize..4, restart in 0_usize..3, retries in proptest::option::of(0_u32..3), is_gated: bool, events in proptest::collection::vec(any_event(), 0..100),
    ) {
        let begin: [fn(Rules) -> State; 4] = [State::new, State::restored, State::left_running, State::backing_off];
        let restart = [Restart::Always, Restart::OnFailure, Restart::Never][restart];
        let mut state = begin[begun](Rules { restart, retries, is_gated, seed: 7 });
        let mut well = false;
        let (mut announced, mut ended, mut recorded) = (0, 0, begun > 0);
        for event in &events {
            let before = state.clone();
            let (next, effects) = state.step(event);
            well = matches!(before.phase, Phase::Checking | Phase::Recording) && (well || *event == Event::Healthy);
            prop_assert!(next.phase != Phase::Recording || !is_gated || well, "written down before it was well");
            recorded |= before.phase == Phase::Recording && *event == Event::Recorded;
            announced += effects.iter().filter(|e| **e == Effect::Announce).count();
            ended += effects.iter().filter(|e| matches!(e, Effect::Retire | Effect::Reject)).count();
            if before.phase == Phase::Stopped {
                prop_assert_eq!(&next.phase, &Phase::Stopped);
                prop_assert!(effects.is_empty());
            }
            prop_assert_eq!(next.phase == Phase::Stopped, ended == 1);
            prop_assert!(announced <= 1);
            prop_assert!(!effects.contains(&Effect::Announce) || recorded, "journalled before anybody is told");
            prop_assert!(!effects.contains(&Effect::Retire) || next.accepted);
            prop_assert!(!effects.contains(&Effect::Reject) || !next.accepted);
            state = next;
        }
        // And from anywhere, a stop leads to the end.
        let (state, _) = state.step(&Event::Stop);
        let (state, _) = state.step(&Event::AdoptFailed);
        let (state, _) = state.step(&Event::Started);
        let (state, _) = state.step(&Event::Recorded);
        let (state, _) = state.step(&Event::Undeployed);
        prop_assert_eq!(state.phase, Phase::Stopped);
    }
}

//! The host calls of one call: recorded, and where it is made again, answered from a record.

use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use futures::future::BoxFuture;
use nex_protocol::host::{HostError, HostRequest};
use nex_protocol::replay::{HostCall, Kept, RECORD_BYTES, REPLAYED_BYTES, Record, Replay, Rest};

use crate::host::HostClient;

/// What a function is told of a host call that is refused in a replay.
const NOT_RECORDED: &str = "this host call is not in the record, and is refused in a replay";

/// Host services of one call, which keeps what they are asked.
pub struct Recorder {
    services: Arc<dyn HostClient>,
    rest: Rest,
    /// Calls of the record that nobody has made yet.
    before: Mutex<Vec<HostCall>>,
    made: Mutex<Made>,
}

/// What was made, within its room.
struct Made {
    record: Record,
    room: usize,
}

impl Recorder {
    /// Host calls go to these services.
    #[must_use]
    pub fn recording(services: Arc<dyn HostClient>) -> Self {
        Self::new(services, Replay { record: Record::default(), rest: Rest::Live }, RECORD_BYTES)
    }

    /// Host calls are answered from a record; what becomes of others, it says.
    #[must_use]
    pub fn replaying(services: Arc<dyn HostClient>, replay: Replay) -> Self {
        Self::new(services, replay, REPLAYED_BYTES)
    }

    fn new(services: Arc<dyn HostClient>, replay: Replay, room: usize) -> Self {
        let Replay { record, rest } = replay;
        Self { services, rest, before: Mutex::new(record.calls), made: Mutex::new(Made { record: Record::default(), room }) }
    }

    /// What was made until now.
    #[must_use]
    pub fn record(&self) -> Record {
        lock(&self.made).record.clone()
    }

    async fn ask(&self, request: HostRequest) -> Result<Bytes, HostError> {
        let call = HostCall::of(&request);
        let answer = self.answer_of(&call);
        let at = lock(&self.made).begin(call);
        let answer = match (answer, self.rest) {
            (Some(answer), _) => answer,
            (None, Rest::Live) => self.services.call(request).await,
            (None, Rest::Refuse) => Err(HostError { code: 409, message: NOT_RECORDED.to_owned() }),
        };
        if let Some(at) = at {
            lock(&self.made).end(at, &answer);
        }
        answer
    }

    /// Takes the first call that asked and sent the same; else the first that asked the same.
    fn answer_of(&self, call: &HostCall) -> Option<Result<Bytes, HostError>> {
        let mut before = lock(&self.before);
        let found = before.iter().position(|it| it.sends_as(call)).or_else(|| before.iter().position(|it| it.is_like(call)))?;
        before.remove(found).to_answer()
    }
}

impl Made {
    /// Keeps a call while there is room. Its number, if it was kept.
    fn begin(&mut self, mut call: HostCall) -> Option<usize> {
        if !self.has_room(&call)
            && let Some(body) = call.body.bytes()
        {
            call.body = Kept::cut(&body);
        }
        if !self.has_room(&call) {
            self.record.left_out = self.record.left_out.saturating_add(1);
            return None;
        }
        self.room -= call.size() + 1;
        self.record.calls.push(call);
        Some(self.record.calls.len() - 1)
    }

    /// Keeps an answer, or its digest, or nothing.
    fn end(&mut self, at: usize, answer: &Result<Bytes, HostError>) {
        let Some(call) = self.record.calls.get_mut(at) else { return };
        let (without, mut with) = (call.size(), call.clone());
        with.answered(answer);
        for _ in 0..2 {
            let more = with.size().saturating_sub(without);
            if more <= self.room {
                self.room -= more;
                *call = with;
                return;
            }
            with.cut_answer();
        }
    }

    fn has_room(&self, call: &HostCall) -> bool {
        call.size() < self.room
    }
}

impl fmt::Debug for Recorder {
    // What was asked may be secret.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Recorder").field("rest", &self.rest).finish_non_exhaustive()
    }
}

impl HostClient for Recorder {
    fn call(&self, request: HostRequest) -> BoxFuture<'_, Result<Bytes, HostError>> {
        Box::pin(self.ask(request))
    }

    fn stuck(&self, message: String) -> BoxFuture<'_, ()> {
        self.services.stuck(message)
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use nex_protocol::host::Service;

    use super::*;

    /// Answers each call with its number, and a body of zeros if it is asked for one.
    #[derive(Default)]
    struct Counting(AtomicUsize);

    impl HostClient for Counting {
        fn call(&self, request: HostRequest) -> BoxFuture<'_, Result<Bytes, HostError>> {
            let number = self.0.fetch_add(1, Ordering::Relaxed);
            Box::pin(async move {
                match request.target.strip_prefix("zeros ").and_then(|count| count.parse().ok()) {
                    Some(count) => Ok(vec![0; count].into()),
                    None if request.target == "absent" => Err(HostError { code: 404, message: "no".into() }),
                    None => Ok(number.to_string().into()),
                }
            })
        }
    }

    fn get(target: &str) -> HostRequest {
        let (service, headers) = (Service::KeyValue, Vec::new());
        HostRequest { service, method: "get".into(), target: target.into(), body: Bytes::new(), headers }
    }

    fn set(target: &str, value: &str) -> HostRequest {
        HostRequest { method: "set".into(), body: value.to_owned().into(), ..get(target) }
    }

    #[tokio::test]
    async fn what_was_recorded_is_answered_once_and_nothing_else_is_done() {
        let services = Arc::<Counting>::default();
        let recorder = Recorder::recording(Arc::<Counting>::clone(&services));
        for request in [get("a"), set("a", "1"), get("a"), get("absent")] {
            recorder.call(request).await.ok();
        }
        let record = recorder.record();
        assert_eq!((record.calls.len(), services.0.load(Ordering::Relaxed)), (4, 4));
        for (rest, expected) in [(Rest::Refuse, Err(409)), (Rest::Live, Ok("4".into()))] {
            let replay = Recorder::replaying(Arc::<Counting>::clone(&services), Replay { record: record.clone(), rest });
            let ask = async |request| replay.call(request).await.map_err(|error| error.code);
            assert_eq!(ask(get("a")).await, Ok("0".into()), "in their order");
            assert_eq!(ask(set("a", "2")).await, Ok("1".into()), "though it sends another value");
            assert_eq!(ask(get("absent")).await, Err(404));
            assert_eq!(ask(get("a")).await, Ok("2".into()));
            assert_eq!(ask(get("a")).await, expected, "nobody asked a third time");
            assert_eq!(replay.record().calls.len(), 5);
        }
        assert_eq!(services.0.load(Ordering::Relaxed), 5, "one was made, where that was asked for");
    }

    #[tokio::test]
    async fn a_record_is_bounded_whatever_is_asked_and_answered() {
        let recorder = Recorder::recording(Arc::<Counting>::default());
        for _ in 0..3 {
            recorder.call(get("zeros 100000")).await.unwrap();
            recorder.call(get("zeros 8000")).await.unwrap();
            recorder.call(set("text", &"\"\\\n".repeat(2_000))).await.unwrap();
            recorder.call(get(&"long ".repeat(5_000))).await.unwrap();
        }
        for _ in 0..1_000 {
            recorder.call(get("a")).await.unwrap();
        }
        let record = recorder.record();
        assert!(record.to_json().len() <= RECORD_BYTES + 64, "{}", record.to_json().len());
        assert_eq!(record.calls.len() as u64 + record.left_out, 1_012);
        assert_eq!(record.calls[0].to_answer(), None, "only what tells it from others");
        assert!(record.calls[1].to_answer().is_some());
        assert_eq!(Record::read(&record.to_json()), Some(record));
    }
}

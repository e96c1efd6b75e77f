//! Host services, the node's side: what a function asks for is done here, on the connection of its workload.
//!
//! Who asks (namespace, workload name, connection) is told by the node, which knows it from the agent's credentials. Nothing
//! a guest sends can name another workload's bucket. Every size, time and number is bounded, and a refusal says why.
//!
//! | room | what is in it |
//! |---|---|
//! | [`config`] | what the node's configuration says about the services |
//! | `template` | bucket names made of namespace and workload name |
//! | `call` | who calls, and what was sent |
//! | `denied` | what NATS does not permit a call |
//! | `bucket` | making buckets, whose they are, handles that are kept |
//! | `kv`, `object`, `messaging`, `http` | the services |
//! | `address` | which addresses `http` may not reach |

mod address;
mod bucket;
mod call;
pub mod config;
mod denied;
mod error;
mod http;
mod kv;
mod messaging;
mod object;
mod respond;
mod template;

use async_nats::{Client, Message};
use bytes::Bytes;
use nex_protocol::host::{HostError, Service, TARGET};

pub use call::CallContext;
pub use config::Config;
pub use respond::respond;

use call::Sent;
use denied::Touched;
use error::refuse;

/// Longest key, object name, subject or URL read at all; the services have narrower rules.
const MAX_TARGET: usize = 8 * 1024;

/// The host services of a node.
#[derive(Debug)]
pub struct HostServices {
    config: Config,
    kv: kv::KeyValue,
    objects: object::Objects,
    http: http::Http,
}

impl HostServices {
    /// Services as configured. Nothing is connected or made before the first call.
    #[must_use]
    pub fn new(config: Config) -> Self {
        Self {
            kv: kv::KeyValue::new(config.kv.clone()),
            objects: object::Objects::new(config.objects.clone()),
            http: http::Http::new(&config.http),
            config,
        }
    }

    /// Does one call: `what` is `<service>.<method>`, the target is in the message's header, the body is its payload.
    ///
    /// # Errors
    /// [`HostError`], with the text the function is to see.
    pub async fn call(&self, context: &CallContext, what: &str, message: &Message) -> Result<Bytes, HostError> {
        let (service, method) = what.split_once('.').ok_or_else(|| refuse(400, format!("'{what}' is not <service>.<method>")))?;
        let service: Service = service.parse()?;
        self.enabled(service)?;
        let target = message.headers.as_ref().and_then(|headers| headers.get(TARGET)).map_or("", |value| value.as_str());
        if target.len() > MAX_TARGET {
            let text = format!("the key, name, subject or url is {} bytes long; at most {MAX_TARGET} are taken", target.len());
            return Err(refuse(400, text));
        }
        let sent = Sent::read(message)?;
        let touched = match service {
            Service::KeyValue => Touched::Bucket(self.kv.bucket(context)),
            Service::ObjectStore => Touched::Bucket(self.objects.bucket(context)),
            Service::Messaging => Touched::Subject(target),
            Service::Http => {
                let workload = format!("{}.{}", context.namespace, context.workload);
                return self.http.call(&workload, method, target, sent).await;
            }
        };
        let work = async {
            match service {
                Service::KeyValue => Box::pin(self.kv.call(context, method, target, sent)).await,
                Service::ObjectStore => Box::pin(self.objects.call(context, method, target, &sent.body)).await,
                Service::Messaging | Service::Http => {
                    messaging::call(&self.config.messaging, context, method, target, sent).await
                }
            }
        };
        Box::pin(denied::or_done(context, what, &touched, work)).await
    }

    /// Lets go of the handles kept on a connection, so it can close. Handles long unused also make room
    /// when another bucket is opened.
    pub fn forget(&self, nats: &Client) {
        self.kv.forget(nats);
        self.objects.forget(nats);
    }

    fn enabled(&self, service: Service) -> Result<(), HostError> {
        let enabled = match service {
            Service::KeyValue => self.config.kv.enabled,
            Service::ObjectStore => self.config.objects.enabled,
            Service::Messaging => self.config.messaging.enabled,
            Service::Http => self.config.http.enabled,
        };
        if enabled {
            return Ok(());
        }
        let text =
            format!("the host service {service} is off on this node: set host_services.services.{service}.enabled to true");
        Err(refuse(403, text))
    }
}

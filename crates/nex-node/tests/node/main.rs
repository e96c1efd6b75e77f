//! A node as a library, against a real nats-server, with real agents in real sandboxes. One file per theme.

#[cfg(test)]
mod adoption;
#[cfg(test)]
mod autostart;
#[cfg(test)]
mod bus;
#[cfg(test)]
mod control;
#[cfg(test)]
mod crash;
#[cfg(test)]
mod drain;
#[cfg(test)]
mod functions;
#[cfg(test)]
mod host_services;
#[cfg(test)]
mod hostile;
#[cfg(test)]
mod lifecycle;
#[cfg(test)]
mod native;
#[cfg(test)]
mod outages;
#[cfg(test)]
mod policy;
#[cfg(test)]
mod repeats;
#[cfg(test)]
mod secrets;
#[cfg(test)]
mod stop;
#[cfg(test)]
mod world;

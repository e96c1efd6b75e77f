//! A node as a library, against a real nats-server, with real agents in real sandboxes. One file per theme.

#[cfg(test)]
mod adoption;
#[cfg(test)]
mod adoption_machines;
#[cfg(test)]
mod autostart;
#[cfg(test)]
mod bus;
#[cfg(test)]
mod control;
#[cfg(test)]
mod crash;
#[cfg(test)]
mod crash_points;
#[cfg(test)]
mod drain;
#[cfg(test)]
mod durable;
#[cfg(test)]
mod durable_crash;
#[cfg(test)]
mod durable_hostile;
#[cfg(test)]
mod durable_order;
#[cfg(test)]
mod durable_schedule;
#[cfg(test)]
mod durable_service;
#[cfg(test)]
mod functions;
#[cfg(test)]
mod health;
#[cfg(test)]
mod history;
#[cfg(test)]
mod host_services;
#[cfg(test)]
mod hostile;
#[cfg(test)]
mod images;
#[cfg(test)]
mod isolation;
#[cfg(test)]
mod jobs;
#[cfg(test)]
mod keeping;
#[cfg(test)]
mod lifecycle;
#[cfg(test)]
mod machines_killed;
#[cfg(test)]
mod native;
#[cfg(test)]
mod neighbours;
#[cfg(test)]
mod outages;
#[cfg(test)]
mod policy;
#[cfg(test)]
mod quotas;
#[cfg(test)]
mod repeats;
#[cfg(test)]
mod secrets;
#[cfg(test)]
mod service_credentials;
#[cfg(test)]
mod stop;
#[cfg(test)]
mod stored_secrets;
#[cfg(test)]
mod world;

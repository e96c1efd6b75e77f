//! Traffic control: a token bucket that limits a device, and the redirection of packets to another device.

use std::io;

use crate::message::{Message, NLM_F_CREATE, NLM_F_EXCL, Nest};
use crate::socket::Netlink;

const RTM_NEWQDISC: u16 = 36;
const RTM_NEWTFILTER: u16 = 44;
const TCA_KIND: u16 = 1;
const TCA_OPTIONS: u16 = 2;
const TC_H_ROOT: u32 = 0xffff_ffff;
const TC_H_INGRESS: u32 = 0xffff_fff1;
/// The handle `ffff:` of the ingress queue.
const INGRESS_HANDLE: u32 = 0xffff_0000;
const TCA_TBF_PARMS: u16 = 1;
const TCA_TBF_RATE64: u16 = 4;
const TCA_TBF_BURST: u16 = 6;
const TCA_U32_SEL: u16 = 5;
const TCA_U32_ACT: u16 = 7;
const TCA_ACT_KIND: u16 = 1;
const TCA_ACT_OPTIONS: u16 = 2;
const TCA_MIRRED_PARMS: u16 = 2;
const TCA_EGRESS_REDIR: i32 = 1;
const TC_ACT_STOLEN: i32 = 4;
const ETH_P_ALL: u16 = 3;

/// With a smaller bucket a device cannot send two full packets in a row.
const MIN_BURST: u64 = 4 * 1_600;
/// A bucket must hold what the rate yields between two ticks of a slow clock (100 Hz), or the rate is never reached.
const TICKS_PER_SECOND: u64 = 100;
/// How long a packet may wait before it is dropped: enough for TCP to settle at the rate instead of collapsing.
const MAX_WAIT_MS: u64 = 50;

/// A rate, and the burst allowed after a pause.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rate {
    /// Bytes per second.
    pub bytes_per_second: u64,
    /// Bytes at once; a burst too small to reach the rate is raised.
    pub burst_bytes: u64,
}

impl Netlink {
    /// Limits what leaves through a device: packets wait in a short queue; what does not fit is dropped.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub fn limit(&mut self, index: i32, rate: Rate) -> io::Result<()> {
        let speed = rate.bytes_per_second.max(1);
        let burst = rate.burst_bytes.max(MIN_BURST).max(speed / TICKS_PER_SECOND).min(u64::from(u32::MAX / 2));
        let queue = (speed.saturating_mul(MAX_WAIT_MS) / 1000).saturating_add(burst).min(u64::from(u32::MAX));
        let burst = u32::try_from(burst).unwrap_or(u32::MAX);
        let mut parameters = Vec::with_capacity(36);
        for speed in [u32::try_from(speed).unwrap_or(u32::MAX), 0] {
            // `struct tc_ratespec`: the link layer is Ethernet, so no table of transmission times is needed.
            parameters.extend([0, 1, 0, 0, 0, 0, 0, 0]);
            parameters.extend(speed.to_ne_bytes());
        }
        parameters.extend(u32::try_from(queue).unwrap_or(u32::MAX).to_ne_bytes());
        parameters.extend([0; 8]);
        let options = |nest: Nest| {
            let nest = nest.attribute(TCA_TBF_PARMS, &parameters).attribute(TCA_TBF_BURST, &burst.to_ne_bytes());
            if speed > u64::from(u32::MAX) { nest.attribute(TCA_TBF_RATE64, &speed.to_ne_bytes()) } else { nest }
        };
        let message = Message::change(RTM_NEWQDISC, NLM_F_CREATE | NLM_F_EXCL).fixed(&header(index, 0, TC_H_ROOT, 0));
        self.request_ack(message.text(TCA_KIND, "tbf").nested(TCA_OPTIONS, options))
    }

    /// Sends everything that arrives on one device out through another.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub fn redirect(&mut self, from: i32, to: i32) -> io::Result<()> {
        let ingress =
            Message::change(RTM_NEWQDISC, NLM_F_CREATE | NLM_F_EXCL).fixed(&header(from, INGRESS_HANDLE, TC_H_INGRESS, 0));
        self.request_ack(ingress.text(TCA_KIND, "ingress"))?;
        // Priority 1, every protocol.
        let info = (1 << 16) | u32::from(ETH_P_ALL.to_be());
        let filter = Message::change(RTM_NEWTFILTER, NLM_F_CREATE | NLM_F_EXCL).fixed(&header(from, 0, INGRESS_HANDLE, info));
        self.request_ack(filter.text(TCA_KIND, "u32").nested(TCA_OPTIONS, |options| {
            options.attribute(TCA_U32_SEL, &match_all()).nested(TCA_U32_ACT, |actions| {
                actions.nested(1, |action| {
                    action
                        .text(TCA_ACT_KIND, "mirred")
                        .nested(TCA_ACT_OPTIONS, |mirred| mirred.attribute(TCA_MIRRED_PARMS, &redirect_to(to)))
                })
            })
        }))
    }
}

/// `struct tcmsg`.
fn header(index: i32, handle: u32, parent: u32, info: u32) -> Vec<u8> {
    let mut header = vec![0; 4];
    header.extend(index.to_ne_bytes());
    header.extend(handle.to_ne_bytes());
    header.extend(parent.to_ne_bytes());
    header.extend(info.to_ne_bytes());
    header
}

/// `struct tc_u32_sel`: terminal, with one key whose mask is zero, which every packet matches.
fn match_all() -> [u8; 32] {
    let mut selector = [0; 32];
    selector[0] = 1;
    selector[2] = 1;
    selector
}

/// `struct tc_mirred`.
fn redirect_to(index: i32) -> Vec<u8> {
    let mut mirred = Vec::with_capacity(28);
    mirred.extend([0; 8]);
    mirred.extend(TC_ACT_STOLEN.to_ne_bytes());
    mirred.extend([0; 8]);
    mirred.extend(TCA_EGRESS_REDIR.to_ne_bytes());
    mirred.extend(index.to_ne_bytes());
    mirred
}

//! Nothing but its tests: the programs of this workspace driven from outside, as a user drives them.

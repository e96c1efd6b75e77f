//! Tokens that were used: each is remembered until it expires, and forgotten then without looking at the others.
//!
//! A token is used up before anything is done for it. That of a request whose process was killed before it had done what it was for is
//! given back to the next one: whoever gets no answer asks again.

use nex_protocol::claims::Claims;
use redb::{Database, Error, ReadableTable as _, ReadableTableMetadata as _, Table, TableDefinition, WriteTransaction};

/// By issuer and id: when it expires, seconds since 1970.
const TOKENS: TableDefinition<'static, (&'static str, &'static str), i64> = TableDefinition::new("spent-tokens");
/// The same by expiry, so that the expired ones are the first.
const EXPIRIES: TableDefinition<'static, (i64, &'static str, &'static str), ()> = TableDefinition::new("spent-token-expiries");
/// How many of each issuer there are.
const COUNTS: TableDefinition<'static, &'static str, u64> = TableDefinition::new("spent-token-counts");
/// Those whose request is under way: by issuer and id, when they expire.
const PENDING: TableDefinition<'static, (&'static str, &'static str), i64> = TableDefinition::new("pending-tokens");
/// When the list of used tokens was lost, seconds since 1970.
const LOST: TableDefinition<'static, (), i64> = TableDefinition::new("tokens-lost");

/// Most tokens remembered of one issuer, and of all.
const OF_AN_ISSUER: u64 = 50_000;
const IN_ALL: u64 = 1_000_000;
/// Most expired tokens forgotten at once; the rest goes with the next one.
const MAX_FORGOTTEN: usize = 1_000;

/// Which token it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TokenId {
    /// Who signed it.
    pub issuer: String,
    /// Its id, of the issuer's own making.
    pub id: String,
}

/// A token that is being used.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SpentToken {
    /// Which one.
    pub token: TokenId,
    /// When it was signed, seconds since 1970.
    pub issued: i64,
    /// When it expires, seconds since 1970.
    pub until: i64,
}

impl From<&Claims> for TokenId {
    fn from(claims: &Claims) -> Self {
        Self { issuer: claims.iss.clone(), id: claims.jti.clone() }
    }
}

/// What came of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Spending {
    /// It was new; it is on disk that it is not any more.
    Done,
    /// It was used before.
    UsedBefore,
    /// It was signed before the list of used tokens was lost, and may be one of them.
    Unknown,
    /// Its issuer, or all issuers together, have too many that have not expired.
    TooMany,
}

/// Makes the tables.
pub(super) fn open(write: &WriteTransaction) -> Result<(), Error> {
    write.open_table(TOKENS)?;
    write.open_table(EXPIRIES)?;
    write.open_table(COUNTS)?;
    write.open_table(PENDING)?;
    write.open_table(LOST)?;
    Ok(())
}

/// Gives back the tokens of requests that were under way when the last process was killed.
pub(super) fn give_back(write: &WriteTransaction) -> Result<(), Error> {
    let (mut tokens, mut expiries, mut counts, mut pending) =
        (write.open_table(TOKENS)?, write.open_table(EXPIRIES)?, write.open_table(COUNTS)?, write.open_table(PENDING)?);
    let mut under_way = Vec::new();
    for entry in pending.iter()? {
        let (key, until) = entry?;
        let (issuer, id) = key.value();
        under_way.push((issuer.to_owned(), id.to_owned(), until.value()));
    }
    for (issuer, id, until) in &under_way {
        pending.remove((issuer.as_str(), id.as_str()))?;
        if tokens.remove((issuer.as_str(), id.as_str()))?.is_some() {
            expiries.remove((*until, issuer.as_str(), id.as_str()))?;
            count_down(&mut counts, issuer)?;
        }
    }
    Ok(())
}

/// What a token was for is done: it stays used, whatever becomes of the process.
pub(super) fn settle(write: &WriteTransaction, TokenId { issuer, id }: &TokenId) -> Result<(), Error> {
    write.open_table(PENDING)?.remove((issuer.as_str(), id.as_str()))?;
    Ok(())
}

/// Remembers that which tokens were used is not known any more.
pub(super) fn lose(write: &WriteTransaction, now: i64) -> Result<(), Error> {
    write.open_table(LOST)?.insert((), now)?;
    Ok(())
}

fn count_down(counts: &mut Table<'_, &'static str, u64>, issuer: &str) -> Result<(), Error> {
    let left = counts.get(issuer)?.map_or(0, |count| count.value().saturating_sub(1));
    if left == 0 {
        counts.remove(issuer)?;
    } else {
        counts.insert(issuer, left)?;
    }
    Ok(())
}

/// Uses a token.
pub(super) fn spend(database: &Database, token: &SpentToken, now: i64) -> Result<Spending, Error> {
    let write = database.begin_write()?;
    let spending = enter(&write, token, now)?;
    if spending == Spending::Done {
        write.commit()?;
    } else {
        // Nothing that must be on disk: a refusal costs no fsync.
        write.abort()?;
    }
    Ok(spending)
}

fn enter(write: &WriteTransaction, token: &SpentToken, now: i64) -> Result<Spending, Error> {
    let (mut tokens, mut expiries, mut counts, mut pending) =
        (write.open_table(TOKENS)?, write.open_table(EXPIRIES)?, write.open_table(COUNTS)?, write.open_table(PENDING)?);
    let expired: Vec<(String, String, i64)> = expiries
        .range(..=(now, "\u{10ffff}", ""))?
        .take(MAX_FORGOTTEN)
        .map(|entry| {
            let (key, _) = entry?;
            let (until, issuer, id) = key.value();
            Ok((issuer.to_owned(), id.to_owned(), until))
        })
        .collect::<Result<_, Error>>()?;
    for (issuer, id, until) in &expired {
        expiries.remove((*until, issuer.as_str(), id.as_str()))?;
        tokens.remove((issuer.as_str(), id.as_str()))?;
        pending.remove((issuer.as_str(), id.as_str()))?;
        count_down(&mut counts, issuer)?;
    }
    if write.open_table(LOST)?.get(())?.is_some_and(|lost| token.issued <= lost.value()) {
        return Ok(Spending::Unknown);
    }
    let (issuer, id) = (token.token.issuer.as_str(), token.token.id.as_str());
    if tokens.get((issuer, id))?.is_some() {
        return Ok(Spending::UsedBefore);
    }
    let count = counts.get(issuer)?.map_or(0, |count| count.value());
    if count >= OF_AN_ISSUER || tokens.len()? >= IN_ALL {
        return Ok(Spending::TooMany);
    }
    tokens.insert((issuer, id), token.until)?;
    expiries.insert((token.until, issuer, id), ())?;
    counts.insert(issuer, count.saturating_add(1))?;
    pending.insert((issuer, id), token.until)?;
    Ok(Spending::Done)
}

#[cfg(test)]
mod tests {
    use redb::ReadableDatabase as _;

    use super::*;

    fn database(path: &std::path::Path) -> Database {
        let database = Database::create(path).unwrap();
        let write = database.begin_write().unwrap();
        open(&write).unwrap();
        write.commit().unwrap();
        database
    }

    fn token(issuer: &str, id: &str, until: i64) -> SpentToken {
        SpentToken { token: TokenId { issuer: issuer.to_owned(), id: id.to_owned() }, issued: 10, until }
    }

    #[test]
    fn a_token_is_new_once_until_it_expires_also_after_reopening() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("journal.redb");
        {
            let database = database(&path);
            assert_eq!(spend(&database, &token("A", "a", 100), 50).unwrap(), Spending::Done);
            assert_eq!(spend(&database, &token("B", "a", 100), 50).unwrap(), Spending::Done, "ids are those of an issuer");
        }
        let database = database(&path);
        assert_eq!(spend(&database, &token("A", "a", 100), 99).unwrap(), Spending::UsedBefore);
        assert_eq!(spend(&database, &token("A", "a", 300), 100).unwrap(), Spending::Done, "an expired token is forgotten");
        let read = database.begin_read().unwrap();
        assert_eq!(read.open_table(TOKENS).unwrap().len().unwrap(), 1);
        assert_eq!(read.open_table(EXPIRIES).unwrap().len().unwrap(), 1);
        assert_eq!(read.open_table(COUNTS).unwrap().len().unwrap(), 1);
    }

    #[test]
    fn the_token_of_a_request_that_was_under_way_is_given_back_and_that_of_one_that_was_done_is_not() {
        let dir = tempfile::tempdir().unwrap();
        let database = database(&dir.path().join("journal.redb"));
        for id in ["done", "under way"] {
            assert_eq!(spend(&database, &token("A", id, 100), 50).unwrap(), Spending::Done);
        }
        let write = database.begin_write().unwrap();
        settle(&write, &token("A", "done", 100).token).unwrap();
        give_back(&write).unwrap();
        write.commit().unwrap();
        assert_eq!(spend(&database, &token("A", "done", 100), 50).unwrap(), Spending::UsedBefore);
        let read = database.begin_read().unwrap();
        assert_eq!(read.open_table(COUNTS).unwrap().get("A").unwrap().unwrap().value(), 1);
        assert_eq!(read.open_table(EXPIRIES).unwrap().len().unwrap(), 1);
        assert_eq!(spend(&database, &token("A", "under way", 100), 50).unwrap(), Spending::Done);
    }

    #[test]
    fn where_the_list_was_lost_only_what_was_signed_later_is_new() {
        let dir = tempfile::tempdir().unwrap();
        let database = database(&dir.path().join("journal.redb"));
        let write = database.begin_write().unwrap();
        lose(&write, 10).unwrap();
        write.commit().unwrap();
        assert_eq!(spend(&database, &token("A", "a", 100), 50).unwrap(), Spending::Unknown);
        assert_eq!(spend(&database, &SpentToken { issued: 11, ..token("A", "a", 100) }, 50).unwrap(), Spending::Done);
    }

    #[test]
    fn an_issuer_with_too_many_tokens_is_refused_and_others_are_not() {
        let dir = tempfile::tempdir().unwrap();
        let database = database(&dir.path().join("journal.redb"));
        let write = database.begin_write().unwrap();
        write.open_table(COUNTS).unwrap().insert("A", OF_AN_ISSUER).unwrap();
        write.commit().unwrap();
        assert_eq!(spend(&database, &token("A", "a", 100), 50).unwrap(), Spending::TooMany);
        assert_eq!(spend(&database, &token("B", "a", 100), 50).unwrap(), Spending::Done);
    }
}

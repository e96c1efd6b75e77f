//! Tokens that were used: each is remembered until it expires, and forgotten then without looking at the others.

use redb::{Database, Error, ReadableTable as _, ReadableTableMetadata as _, TableDefinition, WriteTransaction};

/// By issuer and id: when it expires, seconds since 1970.
const TOKENS: TableDefinition<'static, (&'static str, &'static str), i64> = TableDefinition::new("spent-tokens");
/// The same by expiry, so that the expired ones are the first.
const EXPIRIES: TableDefinition<'static, (i64, &'static str, &'static str), ()> = TableDefinition::new("spent-token-expiries");
/// How many of each issuer there are.
const COUNTS: TableDefinition<'static, &'static str, u64> = TableDefinition::new("spent-token-counts");

/// Most tokens remembered of one issuer, and of all.
const OF_AN_ISSUER: u64 = 50_000;
const IN_ALL: u64 = 1_000_000;
/// Most expired tokens forgotten at once; the rest goes with the next one.
const MAX_FORGOTTEN: usize = 1_000;

/// A token that is being used.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SpentToken {
    /// Who signed it.
    pub issuer: String,
    /// Its id.
    pub id: String,
    /// When it expires, seconds since 1970.
    pub until: i64,
}

/// What came of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Spending {
    /// It was new; it is on disk that it is not any more.
    Done,
    /// It was used before.
    UsedBefore,
    /// Its issuer, or all issuers together, have too many that have not expired.
    TooMany,
}

/// Makes the tables.
pub(super) fn open(write: &WriteTransaction) -> Result<(), Error> {
    write.open_table(TOKENS)?;
    write.open_table(EXPIRIES)?;
    write.open_table(COUNTS)?;
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
    let (mut tokens, mut expiries, mut counts) =
        (write.open_table(TOKENS)?, write.open_table(EXPIRIES)?, write.open_table(COUNTS)?);
    let expired: Vec<SpentToken> = expiries
        .range(..=(now, "\u{10ffff}", ""))?
        .take(MAX_FORGOTTEN)
        .map(|entry| {
            let (key, _) = entry?;
            let (until, issuer, id) = key.value();
            Ok(SpentToken { issuer: issuer.to_owned(), id: id.to_owned(), until })
        })
        .collect::<Result<_, Error>>()?;
    for SpentToken { issuer, id, until } in &expired {
        expiries.remove((*until, issuer.as_str(), id.as_str()))?;
        tokens.remove((issuer.as_str(), id.as_str()))?;
        let left = counts.get(issuer.as_str())?.map_or(0, |count| count.value().saturating_sub(1));
        if left == 0 {
            counts.remove(issuer.as_str())?;
        } else {
            counts.insert(issuer.as_str(), left)?;
        }
    }
    let (issuer, id) = (token.issuer.as_str(), token.id.as_str());
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
        SpentToken { issuer: issuer.to_owned(), id: id.to_owned(), until }
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

//! The statements for the table `messages`, of which each row is one [`Row`](crate::journal::row::Row).
//!
//! A statement does as many rows as there are: it is sent one array for each column, which `unnest` makes rows of.
//! The array of a column that is NULL in all rows is empty, because `unnest` completes short ones with NULL
//! (PostgreSQL manual, 7.2.1.4). Most messages have no lease, no key and no end, so that is half of the columns.

use postgres::types::{FromSql, ToSql};
use postgres::{Client, Error, Row, Statement};

use crate::journal::row::Columns;

/// The columns of a message, in the order in which [`columns`] has them.
pub(super) const COLUMNS: &str =
    "id, queue, place, delayed, attempts, token, until, remaining, crc, key, account, attempts_max, expires,
     expires_left, reason, body";

const INSERT: &str = "
    INSERT INTO messages (id, queue, place, delayed, attempts, token, until, remaining, crc, key, account,
                          attempts_max, expires, expires_left, reason, body)
    SELECT * FROM unnest($1::bigint[], $2::text[], $3::bigint[], $4::boolean[], $5::bigint[], $6::bytea[],
                         $7::bigint[], $8::bigint[], $9::bigint[], $10::text[], $11::text[], $12::bigint[],
                         $13::bigint[], $14::bigint[], $15::bytea[], $16::bytea[])";

/// The body and the limit of attempts stay as they were sent.
const UPDATE: &str = "
    UPDATE messages AS m
    SET queue = n.queue, place = n.place, delayed = n.delayed, attempts = n.attempts, token = n.token,
        until = n.until, remaining = n.remaining, crc = n.crc, key = n.key, account = n.account,
        expires = n.expires, expires_left = n.expires_left, reason = n.reason
    FROM unnest($1::bigint[], $2::text[], $3::bigint[], $4::boolean[], $5::bigint[], $6::bytea[],
                $7::bigint[], $8::bigint[], $9::bigint[], $10::text[], $11::text[], $12::bigint[],
                $13::bigint[], $14::bigint[], $15::bytea[])
      AS n (id, queue, place, delayed, attempts, token, until, remaining, crc, key, account, attempts_max,
            expires, expires_left, reason)
    WHERE m.id = n.id";

const DELETE: &str = "DELETE FROM messages WHERE id = ANY($1)";

/// The statements, prepared.
pub(super) struct Messages {
    insert: Statement,
    update: Statement,
    delete: Statement,
}

/// One array for each column.
#[derive(Default)]
pub(super) struct Arrays<'r> {
    ids: Vec<i64>,
    queues: Vec<&'r str>,
    positions: Vec<i64>,
    are_delayed: Vec<bool>,
    attempts: Vec<i64>,
    tokens: Vec<Option<&'r [u8]>>,
    lease_expires: Vec<Option<i64>>,
    remaining: Vec<Option<i64>>,
    crcs: Vec<i64>,
    keys: Vec<Option<&'r str>>,
    accounts: Vec<Option<&'r str>>,
    attempts_max: Vec<Option<i64>>,
    expires: Vec<Option<i64>>,
    expires_left: Vec<Option<i64>>,
    reasons: Vec<Option<&'r [u8]>>,
    bodies: Vec<&'r [u8]>,
}

impl<'r> Arrays<'r> {
    /// The columns of these rows.
    pub(super) fn of(rows: impl Iterator<Item = Columns<'r>>) -> Self {
        let mut arrays = Self::default();
        rows.for_each(|row| arrays.push(row));
        clear_if_null(&mut arrays.tokens);
        clear_if_null(&mut arrays.lease_expires);
        clear_if_null(&mut arrays.remaining);
        clear_if_null(&mut arrays.keys);
        clear_if_null(&mut arrays.accounts);
        clear_if_null(&mut arrays.attempts_max);
        clear_if_null(&mut arrays.expires);
        clear_if_null(&mut arrays.expires_left);
        clear_if_null(&mut arrays.reasons);
        arrays
    }

    fn push(&mut self, of: Columns<'r>) {
        self.ids.push(of.id);
        self.queues.push(of.queue);
        self.positions.push(of.position);
        self.are_delayed.push(of.is_delayed);
        self.attempts.push(of.attempts);
        self.tokens.push(of.token);
        self.lease_expires.push(of.lease_expires);
        self.remaining.push(of.remaining);
        self.crcs.push(of.crc);
        self.keys.push(of.key);
        self.accounts.push(of.account);
        self.attempts_max.push(of.attempts_max);
        self.expires.push(of.expires);
        self.expires_left.push(of.expires_left);
        // It may have a character that no TEXT can have: U+0000.
        self.reasons.push(of.reason.map(str::as_bytes));
        self.bodies.push(of.body);
    }

    /// All but the bodies, in the order of [`COLUMNS`].
    fn without_bodies(&self) -> [&(dyn ToSql + Sync); 15] {
        [
            &self.ids,
            &self.queues,
            &self.positions,
            &self.are_delayed,
            &self.attempts,
            &self.tokens,
            &self.lease_expires,
            &self.remaining,
            &self.crcs,
            &self.keys,
            &self.accounts,
            &self.attempts_max,
            &self.expires,
            &self.expires_left,
            &self.reasons,
        ]
    }
}

fn clear_if_null<T>(column: &mut Vec<Option<T>>) {
    if column.iter().all(Option::is_none) {
        column.clear();
    }
}

impl Messages {
    pub(super) fn prepare(client: &mut Client) -> Result<Self, Error> {
        Ok(Self {
            insert: client.prepare(INSERT)?,
            update: client.prepare(UPDATE)?,
            delete: client.prepare(DELETE)?,
        })
    }

    /// Adds messages.
    pub(super) fn insert(&self, client: &mut Client, rows: &Arrays) -> Result<(), Error> {
        if rows.ids.is_empty() {
            return Ok(());
        }
        let mut arrays = rows.without_bodies().to_vec();
        arrays.push(&rows.bodies);
        client.execute(&self.insert, &arrays).map(drop)
    }

    /// Changes messages.
    pub(super) fn update(&self, client: &mut Client, rows: &Arrays) -> Result<(), Error> {
        if rows.ids.is_empty() {
            return Ok(());
        }
        client
            .execute(&self.update, &rows.without_bodies())
            .map(drop)
    }

    /// Removes messages.
    pub(super) fn delete(&self, client: &mut Client, ids: &[i64]) -> Result<(), Error> {
        if ids.is_empty() {
            return Ok(());
        }
        client.execute(&self.delete, &[&ids]).map(drop)
    }
}

/// The values of a row: its columns are those of [`COLUMNS`]. `None` if one is of a wrong type.
pub(super) fn columns(row: &Row) -> Option<Columns<'_>> {
    fn get<'r, T: FromSql<'r>>(row: &'r Row, at: usize) -> Option<T> {
        row.try_get(at).ok()
    }
    let reason: Option<&[u8]> = get(row, 14)?;
    Some(Columns {
        id: get(row, 0)?,
        queue: get(row, 1)?,
        position: get(row, 2)?,
        is_delayed: get(row, 3)?,
        attempts: get(row, 4)?,
        token: get(row, 5)?,
        lease_expires: get(row, 6)?,
        remaining: get(row, 7)?,
        crc: get(row, 8)?,
        key: get(row, 9)?,
        account: get(row, 10)?,
        attempts_max: get(row, 11)?,
        expires: get(row, 12)?,
        expires_left: get(row, 13)?,
        reason: reason.map(str::from_utf8).transpose().ok()?,
        body: get(row, 15)?,
    })
}

#[cfg(test)]
mod tests {
    use postgres::{Config, NoTls};

    use super::*;
    use crate::journal::postgres::schema;
    use crate::journal::postgres::testing::{Cluster, PASSWORD, USER};

    fn plain(id: i64) -> Columns<'static> {
        Columns {
            id,
            queue: "default",
            position: 3,
            is_delayed: false,
            attempts: 1,
            token: None,
            lease_expires: None,
            remaining: None,
            crc: 4,
            body: b"body",
            key: None,
            account: None,
            attempts_max: None,
            expires: None,
            expires_left: None,
            reason: None,
        }
    }

    #[test]
    fn what_no_row_has_is_null_and_what_one_has_is_where_it_belongs() {
        let Some(cluster) = Cluster::new() else {
            return;
        };
        let _running = cluster.start(&[]);
        let mut config = Config::new();
        config.host("127.0.0.1").port(cluster.port()).dbname(USER);
        config.user(USER).password(PASSWORD);
        let mut client = config.connect(NoTls).unwrap();
        schema::prepare(&mut client).unwrap();
        let messages = Messages::prepare(&mut client).unwrap();
        let keyed = |id| Columns {
            key: Some("key"),
            expires: Some(5),
            ..plain(id)
        };
        let leased = Columns {
            token: Some(b"token"),
            ..plain(2)
        };
        for rows in [vec![plain(1), plain(2)], vec![plain(3), keyed(4)]] {
            let rows = Arrays::of(rows.into_iter());
            messages.insert(&mut client, &rows).unwrap();
        }
        let rows = Arrays::of([plain(4), leased].into_iter());
        messages.update(&mut client, &rows).unwrap();
        let select = format!("SELECT {COLUMNS} FROM messages ORDER BY id");
        let rows = client.query(&select, &[]).unwrap();
        let found = rows.iter().map(|row| {
            let found = columns(row).unwrap();
            assert_eq!(
                (found.body, found.crc, found.attempts),
                (&b"body"[..], 4, 1)
            );
            (found.id, found.token, found.key, found.expires)
        });
        let want = [
            (1, None, None, None),
            (2, Some(&b"token"[..]), None, None),
            (3, None, None, None),
            // It is no longer there.
            (4, None, None, None),
        ];
        assert!(found.eq(want));
    }
}

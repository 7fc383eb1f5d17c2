//! Where a message goes (RFC 6121 8.5), as a table. Where the RFC leaves a choice, the table holds ours: a person's
//! message is stored or returned with an error, never dropped; what is no person's message is dropped.

/// Type of a message (RFC 6121 5.2.2).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Type {
    Normal,
    Chat,
    Groupchat,
    Headline,
    Error,
}

impl Type {
    /// By the attribute; an unknown one is `normal`.
    pub(super) fn of(attribute: Option<&str>) -> Type {
        match attribute {
            Some("chat") => Type::Chat,
            Some("groupchat") => Type::Groupchat,
            Some("headline") => Type::Headline,
            Some("error") => Type::Error,
            _ => Type::Normal,
        }
    }

    /// Outlives the session that it was given to (XEP-0160 3).
    pub(super) fn is_kept(self) -> bool {
        matches!(self, Type::Normal | Type::Chat)
    }
}

/// What the account has.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Account {
    /// It does not exist.
    Missing,
    /// No available resource.
    Away,
    /// Available resources, all with negative priority.
    Negative,
    /// An available resource with a priority of 0 or more.
    Present,
}

/// Whom the message names.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Named {
    /// The account.
    Bare,
    /// A resource that is connected, or lost its stream and may be resumed (D14).
    Resource,
    /// A resource that is not there.
    NoResource,
}

/// What becomes of it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Delivery {
    /// Nothing.
    Drop,
    /// `service-unavailable` to the sender.
    Bounce,
    /// Stored until a resource is available.
    Store,
    /// To the resource that is named.
    One,
    /// To each available resource that does not have a negative priority.
    All,
}

use Delivery::{All, Bounce, Drop, One, Store};

type Row = (Account, Named, [Delivery; 5]);

/// Columns: normal, chat, groupchat, headline, error.
pub(super) const TABLE: [Row; 11] = [
    (Account::Missing, Named::Bare, [Bounce, Bounce, Bounce, Drop, Drop]),
    (Account::Missing, Named::NoResource, [Bounce, Bounce, Bounce, Drop, Drop]),
    (Account::Away, Named::Bare, [Store, Store, Bounce, Drop, Drop]),
    // Connected, and without presence: a full JID reaches it all the same.
    (Account::Away, Named::Resource, [One, One, One, One, One]),
    (Account::Away, Named::NoResource, [Bounce, Store, Bounce, Drop, Drop]),
    (Account::Negative, Named::Bare, [Store, Store, Bounce, Drop, Drop]),
    (Account::Negative, Named::NoResource, [Bounce, Store, Bounce, Drop, Drop]),
    (Account::Negative, Named::Resource, [One, One, One, One, One]),
    (Account::Present, Named::Bare, [All, All, Bounce, All, Drop]),
    (Account::Present, Named::Resource, [One, One, One, One, One]),
    // A chat goes on at another device; anything else was meant for this one (8.5.3.2.1).
    (Account::Present, Named::NoResource, [Bounce, All, Bounce, Drop, Drop]),
];

/// What becomes of a message.
pub(super) fn delivery(account: Account, named: Named, type_: Type) -> Delivery {
    let row = TABLE.iter().find(|(a, n, _)| (*a, *n) == (account, named));
    row.map_or(Drop, |(_, _, columns)| columns[type_ as usize])
}

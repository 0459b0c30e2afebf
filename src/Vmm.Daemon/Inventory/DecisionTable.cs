using Microsoft.Data.Sqlite;

namespace Vmm.Daemon.Inventory;

/// <summary>What became of a VM that was offered by another host.</summary>
public enum Decision
{
    /// <summary>It is this host's.</summary>
    Committed,

    /// <summary>It is not, and never will be by this move.</summary>
    Aborted,
}

/// <summary>
/// Decisions over moves from other hosts. Each is written once: whoever comes first decides, and everybody who comes later, also another
/// daemon, is told the same. This is the commit point of a move between two hosts.
/// </summary>
public sealed class DecisionTable
{
    /// <summary>Makes the table when it is not there.</summary>
    internal const string Schema = """
        CREATE TABLE IF NOT EXISTS move_decision (
            number INTEGER PRIMARY KEY AUTOINCREMENT, id TEXT NOT NULL UNIQUE, decision TEXT NOT NULL) STRICT;
        """;

    // An abort says no more than that a move that is not known is not committed, which holds for one that was forgotten, too: it is kept
    // for requests that are late. A commit is never forgotten.
    private const string Prune = """
        DELETE FROM move_decision WHERE decision = 'Aborted' AND number <= (SELECT MAX(number) FROM move_decision) - 10000;
        """;

    private readonly InventoryDatabase _database;

    internal DecisionTable(InventoryDatabase database) => _database = database;

    /// <summary>Decides, unless it was decided before.</summary>
    /// <param name="id">The move.</param>
    /// <param name="wanted">What it is to be.</param>
    /// <returns>What it is.</returns>
    /// <exception cref="SqliteException">It cannot be written: nothing is decided.</exception>
    public Decision Decide(string id, Decision wanted)
    {
        _database.Change(
            ["INSERT OR IGNORE INTO move_decision (id, decision) VALUES ($id, $decision);", Prune],
            ("$id", id),
            ("$decision", wanted.ToString()));
        return Find(id) ?? throw new InvalidOperationException($"the decision over the move {id} was not written");
    }

    /// <summary>What it is; null: it is not decided.</summary>
    public Decision? Find(string id) =>
        _database.Scalar("SELECT decision FROM move_decision WHERE id=$id;", ("$id", id)) is string decision
            ? Enum.Parse<Decision>(decision)
            : null;
}

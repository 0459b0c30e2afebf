using Microsoft.Data.Sqlite;
using Vmm.Daemon.Access;

namespace Vmm.Daemon.Inventory;

/// <summary>Access tokens, as hashes.</summary>
public sealed class TokenTable
{
    /// <summary>Makes the table.</summary>
    internal const string Schema = """
        CREATE TABLE token (
            id TEXT PRIMARY KEY NOT NULL, name TEXT NOT NULL, role TEXT NOT NULL, hash BLOB NOT NULL UNIQUE,
            expires INTEGER NOT NULL) STRICT;
        """;

    private readonly InventoryDatabase _database;

    internal TokenTable(InventoryDatabase database) => _database = database;

    /// <summary>All of them, by name. A role that this version does not know opens nothing.</summary>
    public IReadOnlyList<TokenRecord> All() =>
        _database.Read("SELECT id, name, role, hash, expires FROM token ORDER BY name, id;", Record);

    /// <summary>Adds one.</summary>
    public void Add(TokenRecord token) => _database.Change(
        ["INSERT INTO token (id, name, role, hash, expires) VALUES ($id, $name, $role, $hash, $expires);"],
        ("$id", token.Id),
        ("$name", token.Name),
        ("$role", token.Role.ToString()),
        ("$hash", token.Hash),
        ("$expires", token.Expires.ToUnixTimeSeconds()));

    /// <summary>Removes one; false when there is none of this id.</summary>
    public bool Remove(string id) => _database.Change(["DELETE FROM token WHERE id=$id;"], ("$id", id)) == 1;

    private static TokenRecord? Record(SqliteDataReader row) => Enum.TryParse(row.GetString(2), out Role role)
        ? new TokenRecord(
            row.GetString(0), row.GetString(1), role, (byte[])row[3], DateTimeOffset.FromUnixTimeSeconds(row.GetInt64(4)))
        : null;
}

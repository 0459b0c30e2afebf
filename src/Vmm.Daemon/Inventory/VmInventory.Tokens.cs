using Microsoft.Data.Sqlite;
using Vmm.Contracts.Rest;

namespace Vmm.Daemon.Inventory;

/// <content>Tokens.</content>
public sealed partial class VmInventory
{
    private const string TokenTable = "CREATE TABLE IF NOT EXISTS token (id TEXT PRIMARY KEY NOT NULL, name TEXT NOT NULL UNIQUE, role TEXT NOT NULL, created INTEGER NOT NULL, expires INTEGER NOT NULL, salt BLOB NOT NULL, hash BLOB NOT NULL) STRICT;";
    private const int SqliteConstraint = 19;

    /// <summary>Adds a token; false when the name is taken.</summary>
    internal bool AddToken(TokenRecord token)
    {
        lock (_gate)
        {
            using SqliteCommand command = Command("INSERT INTO token (id, name, role, created, expires, salt, hash) VALUES ($id, $name, $role, $created, $expires, $salt, $hash);");
            command.Parameters.AddWithValue("$id", token.Info.Id);
            command.Parameters.AddWithValue("$name", token.Info.Name);
            command.Parameters.AddWithValue("$role", token.Info.Role.ToString());
            command.Parameters.AddWithValue("$created", token.Info.Created.ToUnixTimeSeconds());
            command.Parameters.AddWithValue("$expires", token.Info.Expires.ToUnixTimeSeconds());
            command.Parameters.AddWithValue("$salt", token.Salt);
            command.Parameters.AddWithValue("$hash", token.Hash);
            try
            {
                return command.ExecuteNonQuery() == 1;
            }
            catch (SqliteException e) when (e.SqliteErrorCode == SqliteConstraint)
            {
                return false;
            }
        }
    }

    /// <summary>All tokens, by name.</summary>
    internal IReadOnlyList<TokenInfo> Tokens()
    {
        lock (_gate)
        {
            using SqliteCommand command = Command("SELECT id, name, role, created, expires, salt, hash FROM token ORDER BY name;");
            return [.. ReadTokens(command).Select(t => t.Info)];
        }
    }

    /// <summary>One token.</summary>
    internal TokenRecord? FindToken(string id)
    {
        lock (_gate)
        {
            using SqliteCommand command = Command("SELECT id, name, role, created, expires, salt, hash FROM token WHERE id=$id;");
            command.Parameters.AddWithValue("$id", id);
            return ReadTokens(command) is [var token] ? token : null;
        }
    }

    /// <summary>Removes a token; false when there is none.</summary>
    internal bool RemoveToken(string id)
    {
        lock (_gate)
        {
            using SqliteCommand command = Command("DELETE FROM token WHERE id=$id;");
            command.Parameters.AddWithValue("$id", id);
            return command.ExecuteNonQuery() == 1;
        }
    }

    private static List<TokenRecord> ReadTokens(SqliteCommand command)
    {
        List<TokenRecord> tokens = [];
        using SqliteDataReader rows = command.ExecuteReader();
        while (rows.Read())
        {
            // A role that this version does not know gives nothing.
            if (Enum.TryParse(rows.GetString(2), out Role role) && Enum.IsDefined(role))
            {
                tokens.Add(new TokenRecord(
                    new TokenInfo(rows.GetString(0), rows.GetString(1), role, DateTimeOffset.FromUnixTimeSeconds(rows.GetInt64(3)), DateTimeOffset.FromUnixTimeSeconds(rows.GetInt64(4))),
                    rows.GetFieldValue<byte[]>(5), rows.GetFieldValue<byte[]>(6)));
            }
        }

        return tokens;
    }
}

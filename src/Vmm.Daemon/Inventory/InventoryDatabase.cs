using Microsoft.Data.Sqlite;

namespace Vmm.Daemon.Inventory;

/// <summary>The SQLite file: one connection, whose users take turns.</summary>
/// <param name="path">The file.</param>
internal sealed class InventoryDatabase(string path) : IDisposable
{
    private readonly Lock _gate = new();
    private readonly SqliteConnection _connection =
        new(new SqliteConnectionStringBuilder { DataSource = path, Pooling = false }.ToString());

    /// <summary>Opens it.</summary>
    /// <exception cref="SqliteException">It cannot be opened, or is no database.</exception>
    internal void Open()
    {
        _connection.Open();
        Execute("PRAGMA journal_mode=WAL; PRAGMA synchronous=FULL; PRAGMA foreign_keys=ON;");
    }

    /// <summary>Closes it behind the change that goes on: to close the connection under a transaction would roll that back.</summary>
    public void Dispose()
    {
        lock (_gate)
        {
            _connection.Dispose();
        }
    }

    /// <summary>What each row means; a row that means nothing to this version (null) is left out.</summary>
    internal IReadOnlyList<T> Read<T>(string sql, Func<SqliteDataReader, T?> row) where T : class
    {
        lock (_gate)
        {
            using SqliteCommand command = Command(sql);
            using SqliteDataReader rows = command.ExecuteReader();
            List<T> all = [];
            while (rows.Read())
            {
                if (row(rows) is { } one)
                {
                    all.Add(one);
                }
            }

            return all;
        }
    }

    /// <summary>Carries out statements as one transaction.</summary>
    /// <param name="statements">The statements.</param>
    /// <param name="values">What their parameters stand for.</param>
    /// <returns>Rows that the first one changed.</returns>
    internal int Change(ReadOnlySpan<string> statements, params ReadOnlySpan<(string Name, object? Value)> values)
    {
        lock (_gate)
        {
            using SqliteTransaction all = _connection.BeginTransaction();
            int? first = null;
            foreach (string sql in statements)
            {
                using SqliteCommand command = Command(sql);
                command.Transaction = all;
                foreach ((string name, object? value) in values)
                {
                    command.Parameters.AddWithValue(name, value ?? DBNull.Value);
                }

                int rows = command.ExecuteNonQuery();
                first ??= rows;
            }

            all.Commit();
            return first ?? 0;
        }
    }

    /// <summary>Carries out a text of this program that has no parameters.</summary>
    internal void Execute(string sql)
    {
        lock (_gate)
        {
            using SqliteCommand command = Command(sql);
            command.ExecuteNonQuery();
        }
    }

    /// <summary>The first value of the answer.</summary>
    internal object? Scalar(string sql, params ReadOnlySpan<(string Name, object? Value)> values)
    {
        lock (_gate)
        {
            using SqliteCommand command = Command(sql);
            foreach ((string name, object? value) in values)
            {
                command.Parameters.AddWithValue(name, value ?? DBNull.Value);
            }

            return command.ExecuteScalar();
        }
    }

#pragma warning disable CA2100 // Every text is a constant of this folder.
    private SqliteCommand Command(string sql) => new(sql, _connection);
#pragma warning restore CA2100
}

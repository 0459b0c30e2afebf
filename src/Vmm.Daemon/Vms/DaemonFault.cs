using Microsoft.Data.Sqlite;
using Vmm.Contracts.Rest;

namespace Vmm.Daemon.Vms;

/// <summary>What is told of an error that nobody foresaw where it happened.</summary>
internal static class DaemonFault
{
    private const int Full = 13; // SQLITE_FULL, sqlite3.h

    /// <summary>The problem as its user hears of it; what the log has is not told.</summary>
    /// <param name="fault">The error.</param>
    /// <param name="otherwise">What is said when its cause is the daemon's own.</param>
    internal static Problem ToProblem(Exception fault, string otherwise) => fault is SqliteException { SqliteErrorCode: Full }
        ? new Problem(
            507, "no-space", "there is no room for the inventory",
            "the file system of vmmd's state folder is full, and what was asked for could not be written down: free some space, ask again")
        : new Problem(500, "internal", "an error of the daemon", otherwise);
}

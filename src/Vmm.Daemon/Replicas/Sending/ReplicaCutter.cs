using Microsoft.Data.Sqlite;
using Vmm.Contracts.Rest;
using Vmm.Daemon.Inventory;
using Vmm.Daemon.Vms;
using Vmm.Storage;
using Vmm.Storage.Replicas;

namespace Vmm.Daemon.Replicas.Sending;

/// <summary>
/// Cuts the disks of a VM every interval. While as much waits in the spool as may, there are no cuts: what would have been several points
/// becomes one.
/// </summary>
/// <param name="ledger">What both halves know.</param>
/// <param name="cuts">Makes cuts.</param>
/// <param name="changes">Tells what was written.</param>
internal sealed class ReplicaCutter(ReplicaLedger ledger, VmCuts cuts, IChangeSource changes)
{
    /// <summary>Most points that wait in the spool, and bytes of them: with more there is no cut.</summary>
    internal const int MostPoints = 8;

    /// <inheritdoc cref="MostPoints"/>
    internal const ulong MostBytes = 1 << 30;

    private static readonly TimeSpan s_hold = TimeSpan.FromMinutes(1);

    private ReplicaStatus Status => ledger.Status;

    private TimeProvider Time => ledger.Parts.Time;

    /// <summary>Goes on until it is cancelled.</summary>
    internal async Task RunAsync(CancellationToken cancellation)
    {
        DateTimeOffset next = Time.GetUtcNow();
        while (true)
        {
            await ledger.Cut.WaitAsync(next - Time.GetUtcNow(), Time, cancellation).ConfigureAwait(false);
            next = Time.GetUtcNow() + TimeSpan.FromSeconds(ledger.Settings.IntervalSeconds);
            try
            {
                await CutAsync(cancellation).ConfigureAwait(false);
            }
            catch (ApiException)
            {
                // It is told of where it was found, and the next interval tries again.
            }
#pragma warning disable CA1031 // The last stop: an error of vmmd is told, and the next interval tries again.
            catch (Exception e) when (e is not OperationCanceledException || !cancellation.IsCancellationRequested)
#pragma warning restore CA1031
            {
                DaemonLog.ReplicaFault(ledger.Parts.Log, e, ledger.Name);
                Status.Fail(ReplicaWork.Cut, "internal", $"an error of vmmd, see its log: {e.Message}");
            }

            if (!cuts.IsClosed && ledger.IsLate)
            {
                Status.Apply(ReplicaChange.Late, "the newest point at the recovery site is older than two intervals");
            }
        }
    }

    /// <summary>Cuts now, after a cut that goes on.</summary>
    /// <returns>The point; null: the VM is off, and was cut since.</returns>
    /// <exception cref="ApiException">No cut was made, and why.</exception>
    internal async Task<SpooledPoint?> CutAsync(CancellationToken cancellation)
    {
        if (ledger.Held() is { } held)
        {
            throw ReplicaProblem.Held(ledger.Name, held);
        }

        if (Status.State == ReplicaState.Fenced)
        {
            throw ReplicaProblem.Fenced(ledger.Name, "the recovery site has another history: nothing is cut");
        }

        await ledger.Cutting.WaitAsync(cancellation).ConfigureAwait(false);
        try
        {
            return await CutHeldAsync(cancellation).ConfigureAwait(false);
        }
        catch (ApiException cause)
        {
            Note(cause.Problem);
            throw;
        }
        catch (Exception cause) when (cause is BlockException or SqliteException)
        {
            Status.Fail(ReplicaWork.Cut, "cut-failed", cause.Message);
            throw new ApiException(500, "cut-failed", "the disks cannot be cut", $"{ledger.Name}: {cause.Message}", inner: cause);
        }
        finally
        {
            ledger.Cutting.Release();
        }
    }

    private async Task<SpooledPoint?> CutHeldAsync(CancellationToken cancellation)
    {
        (ReplicaSettings settings, ReplicaSpool spool) = (ledger.Settings, ledger.RequireSpool());
        if (Status.Own is { } own)
        {
            throw ReplicaProblem.Held(ledger.Name, own);
        }

        if (Status.State == ReplicaState.Suspended)
        {
            Status.Release();
            Status.Apply(ReplicaChange.Resumed, "it is tried again");
        }

        string? waits = settings.Resync is not null && !ledger.HasTrees
                ? $"hashes of the recovery site are needed first ({settings.Resync})"
            : spool.Points.Count >= MostPoints || spool.Bytes >= MostBytes
                ? $"{spool.Points.Count} points of {spool.Bytes >> 20} MiB wait, as much as may: what is written goes into the next"
            : null;
        if (waits is not null)
        {
            throw new ApiException(409, "replica-waits", "there is no cut now", $"{ledger.Name}: {waits}");
        }

        byte[]? variables = ledger.Parts.Variables(ledger.Id);
        CutOrder order = new(
            spool, Guid.NewGuid(), ledger.LastCut, Guid.Parse(settings.Generations.Current), settings.Disks, settings.QuiesceSeconds,
            settings.Resync, changes, variables is null ? null : Convert.ToBase64String(variables), Time);
        SpooledPoint? made;
        try
        {
            made = await cuts.CutAsync(order, cancellation).ConfigureAwait(false);
        }
        finally
        {
            // Whatever became of the VM's overlays: what is in the spool is sent.
            if (spool.Points.FirstOrDefault(point => point.Point.Id == order.Point) is { } durable)
            {
                After(durable.Point, settings);
                ledger.Send.Set();
            }
        }

        Status.Works(ReplicaWork.Cut);
        return made;
    }

    private void After(SealedPoint point, ReplicaSettings settings)
    {
        string[] whole = [.. point.Disks.Where(disk => disk.Why is not null).Select(disk => $"{disk.Name}: {disk.Why}")];
        // Of a disk's first copy after all was lost the reason is known better than by the cut.
        string? why = whole.Length == 0 ? settings.WhyFull
            : point.Parent == Guid.Empty && settings.WhyFull is { } known ? known
            : string.Join("; ", whole);
        ledger.HasTrees = false;
        if (settings.Resync is not null || !string.Equals(why, settings.WhyFull, StringComparison.Ordinal))
        {
            ledger.Change(each => each with { WhyFull = why, Resync = null });
        }

        if (whole.Length > 0)
        {
            string first = point.Parent == Guid.Empty ? $" ({why})" : "";
            Status.Say("replica-full-copy", $"all of a disk is sent: {string.Join("; ", whole)}{first}");
        }
    }

    private void Note(Problem problem)
    {
        if (problem.Status == 507)
        {
            Status.Fail(ReplicaWork.Cut, problem.Code, problem.Detail);
            Status.Hold(problem.Detail, s_hold);
        }
        else if (problem.Status == 409)
        {
            Status.Skipped(problem.Detail);
        }
        else
        {
            Status.Fail(ReplicaWork.Cut, problem.Code, problem.Detail);
        }
    }
}

using System.Collections.Concurrent;
using Microsoft.Data.Sqlite;
using Microsoft.Extensions.Hosting;
using Microsoft.Extensions.Logging;
using Vmm.Contracts.Rest;
using Vmm.Daemon.Vms;
using Vmm.Storage;
using Vmm.Storage.Qcow2.Tools;
using Vmm.Storage.Replicas;

namespace Vmm.Daemon.Replicas.Receiving;

/// <summary>
/// What is done for replicas without being asked: failovers that an earlier vmmd was at are finished or undone, and points that the keep
/// policy does not want are merged into the next ones.
/// </summary>
/// <param name="library">The replicas.</param>
/// <param name="recoveries">Takes failovers back.</param>
/// <param name="makes">Knows the VMs.</param>
/// <param name="users">Knows who stands on points.</param>
/// <param name="log">The log.</param>
internal sealed class RecoverySettling(
    ReplicaLibrary library, Recoveries recoveries, RecoveryVms makes, PointUsers users, ILogger<RecoverySettling> log)
    : IHostedService, IDisposable
{
    private readonly CancellationTokenSource _ending = new();
    private readonly ConcurrentDictionary<Replica, Task> _merges = new();
    private readonly SemaphoreSlim _one = new(1, 1); // one merge at a time on a host: what comes is more urgent. It has no handle

    /// <summary>Settles what was left, and listens for points. The inventory is read already.</summary>
    public async Task StartAsync(CancellationToken cancellationToken)
    {
        library.Arrived = (replica, _) => BeginMerge(replica);
        foreach (Replica replica in library.All)
        {
            try
            {
                _ = await replica.ChangeAsync(Settled, cancellationToken).ConfigureAwait(false);
            }
            catch (ApiException cause)
            {
                library.Tell(replica.Name, $"what an earlier vmmd was at cannot be settled: {cause.Message}");
                continue;
            }

            if (replica.Record.Failover is { Step: FailoverStep.Cancelling })
            {
                _ = Task.Run(() => GoOnAsync(replica), CancellationToken.None);
            }
            else if (replica.Damage is null)
            {
                BeginMerge(replica);
            }
        }
    }

    /// <summary>Stops merging; what is half done is done again by the next vmmd.</summary>
    public async Task StopAsync(CancellationToken cancellationToken)
    {
        library.Arrived = null;
        await _ending.CancelAsync().ConfigureAwait(false);
        await Task.WhenAll(_merges.Values).WaitAsync(cancellationToken).ConfigureAwait(ConfigureAwaitOptions.SuppressThrowing);
    }

    /// <inheritdoc/>
    public void Dispose() => _ending.Dispose();

    // A VM that is in the inventory was made; one that is not never was.
    private SiteRecord Settled(SiteRecord record)
    {
        record = record with { Tests = [.. record.Tests.Where(test => makes.IsThere(test.VmId))] };
        return record.Failover is not { Step: FailoverStep.Making } failover ? record
            : makes.IsThere(record.Vm) ? record with { Failover = failover with { Step = FailoverStep.Made } }
            : Recoveries.Undone(record);
    }

    private async Task GoOnAsync(Replica replica)
    {
        await replica.Failing.WaitAsync(_ending.Token).ConfigureAwait(false);
        try
        {
            await recoveries.CancelAsync(replica, _ending.Token).ConfigureAwait(false);
        }
        catch (Exception cause) when (cause is ApiException or SqliteException or IOException)
        {
            library.Tell(replica.Name, $"the end of its failover is not done: cancel it again: {cause.Message}");
        }
        catch (OperationCanceledException)
        {
            DaemonLog.ReplicaTold(log, replica.Name, "the next vmmd goes on with the end of its failover");
        }
        finally
        {
            _ = replica.Failing.Release();
        }
    }

    private void BeginMerge(Replica replica)
    {
        Task Begin() => Task.Run(() => MergeAsync(replica), CancellationToken.None);
        _ = _merges.AddOrUpdate(replica, _ => Begin(), (_, before) => before.IsCompleted ? Begin() : before);
    }

    private async Task MergeAsync(Replica replica)
    {
        try
        {
            for (bool goesOn = true; goesOn;)
            {
                await _one.WaitAsync(_ending.Token).ConfigureAwait(false);
                try
                {
                    await replica.Use.WaitAsync(_ending.Token).ConfigureAwait(false);
                    try
                    {
                        goesOn = MergeOne(replica);
                    }
                    finally
                    {
                        _ = replica.Use.Release();
                    }
                }
                finally
                {
                    _ = _one.Release();
                }
            }
        }
        catch (OperationCanceledException)
        {
            return; // vmmd ends
        }
        catch (Exception cause) when (cause is BlockException or ApiException or IOException or UnauthorizedAccessException)
        {
            library.Tell(replica.Name, $"points that are not to be kept stay: {cause.Message}");
        }
    }

    // One at a time: who stands on points may change between two.
    private bool MergeOne(Replica replica)
    {
        SiteRecord record = replica.Record;
        if (record.State != ReplicaSiteState.Receiving)
        {
            return false;
        }

        IReadOnlyList<ArrangedPoint> points = replica.Points.Points;
        KeepRules rules = new(TimeSpan.FromSeconds(record.Keep.AllSeconds), record.Keep.Hourly, record.Keep.Daily);
        IReadOnlyDictionary<int, SortedSet<string>> used = users.Of(replica);
        Guid[] inUse = [.. points.Where(point => used.GetValueOrDefault(point.Number) is { Count: > 0 }).Select(point => point.Point.Id)];
        foreach (Guid drop in KeepPolicy.Drop(points, rules, TimeProvider.System.GetUtcNow()).Except(inUse))
        {
            if (replica.Points.Merge([drop], inUse, new ToolProgress(null, _ending.Token)) > 0)
            {
                return true;
            }
        }

        return false;
    }
}

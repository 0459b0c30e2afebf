using Microsoft.Extensions.Logging.Abstractions;
using Vmm.Contracts.Rest;
using Vmm.Daemon.Access;
using Vmm.Daemon.Inventory;
using Vmm.Daemon.Vms;

namespace Vmm.Daemon.Tests;

/// <summary>Requests that meet each other.</summary>
public sealed class RaceTests
{
    private static readonly CancellationToken s_none = CancellationToken.None;

    [Fact]
    public async Task A_disk_is_either_named_by_a_spec_or_deleted()
    {
        await using DaemonFixture daemon = await DaemonFixture.StartAsync();
        string disk = Path.Combine(daemon.Options.DisksFolder, "d");
        int named = 0, deleted = 0;
        for (int round = 0; round < 100; round++)
        {
            await File.WriteAllBytesAsync(disk, new byte[512]);
            Task<bool> create = Succeeds(() => daemon.CreateAsync("web1", $"disks: [{{path: {disk}}}]\n")),
                delete = Succeeds(() => daemon.Client.DeleteDiskAsync("d", s_none));
            bool[] both = await Task.WhenAll(create, delete);
            Assert.False(both[0] && both[1], "a spec names a disk that is deleted");
            Assert.Equal(both[1], !File.Exists(disk));
            (named, deleted) = (named + (both[0] ? 1 : 0), deleted + (both[1] ? 1 : 0));
            if (both[0])
            {
                await daemon.Client.DeleteAsync("web1", s_none);
            }
        }

        Assert.True(named + deleted > 50, $"{named} {deleted}");
    }

    [Fact]
    public void Who_names_a_disk_and_who_deletes_it_exclude_each_other()
    {
        DiskNames names = new();
        Vmm.Spec.DiskSpec[] disks = [new() { Path = "/d/a" }, new() { Path = "/d/b" }];
        using (names.Name(disks))
        using (names.Name(disks)) // two requests may name the same
        {
            Assert.Throws<ApiException>(() => names.Delete("/d/a"));
        }

        using (names.Delete("/d/a"))
        {
            Assert.Throws<ApiException>(() => names.Delete("/d/a"));
            Assert.Throws<ApiException>(() => names.Name(disks));
        }

        names.Name(disks).Dispose();
    }

    [Fact]
    public async Task Only_its_owner_or_an_administrator_cancels_a_job()
    {
        string folder = Directory.CreateTempSubdirectory("vmm-jobs-").FullName;
        try
        {
            using VmInventory inventory = VmInventory.Open(Path.Combine(folder, "inventory.db"));
            Jobs jobs = new(inventory.Jobs, new EventHub(), NullLogger.Instance);
            Principal alice = new("token:alice", Role.Operator), bob = new("token:bob", Role.Operator), root = new("uid=0", Role.Admin);
            JobInfo first = jobs.Start("test", "x", alice, (_, cancellation) => Task.Delay(Timeout.Infinite, cancellation)),
                second = jobs.Start("test", "y", alice, (_, cancellation) => Task.Delay(Timeout.Infinite, cancellation));
            Assert.Equal("token:alice", first.Owner);
            ApiException refused = await Assert.ThrowsAsync<ApiException>(() => jobs.CancelAsync(first.Id, bob));
            Assert.Equal((403, "forbidden"), (refused.Problem.Status, refused.Problem.Code));
            Assert.Equal(JobState.Running, jobs.Get(first.Id).State);
            Assert.Equal(JobState.Cancelled, (await jobs.CancelAsync(first.Id, alice)).State);
            Assert.Equal(JobState.Cancelled, (await jobs.CancelAsync(second.Id, root)).State);
        }
        finally
        {
            Directory.Delete(folder, recursive: true);
        }
    }

    private static async Task<bool> Succeeds(Func<Task> request)
    {
        try
        {
            await request();
            return true;
        }
        catch (VmmApiException)
        {
            return false;
        }
    }
}

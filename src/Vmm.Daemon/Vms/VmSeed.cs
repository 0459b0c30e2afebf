using System.Security.Cryptography;
using Vmm.Contracts.Rest;
using Vmm.Daemon.Inventory;
using Vmm.Spec;
using Vmm.Spec.Seeds;
using Vmm.Storage.Seeds;

namespace Vmm.Daemon.Vms;

/// <summary>
/// What a VM gets at its first start: a small read-only disk behind its others, of each run until it is deleted. Of its content nothing is
/// told to anybody but the guest. A seed for one run is deleted when that run is over: when the VM is off, or reboots; saved and
/// restored it is the same run.
/// </summary>
/// <param name="vm">The VM.</param>
/// <param name="store">Keeps seeds; null: nobody does.</param>
internal sealed class VmSeed(VmSupervisor vm, SeedStore? store)
{
    private readonly Lock _deleting = new();

    /// <summary>What there is of it.</summary>
    internal VmSeedInfo Info => vm.Store.Record.Seed switch
    {
        null => new VmSeedInfo(VmSeedState.None, Once: false, 0),
        { IsDeleted: true } seed => new VmSeedInfo(VmSeedState.Deleted, seed.Once, 0),
        { } seed => new VmSeedInfo(
            seed.Once && seed.IsUsed ? VmSeedState.Used : VmSeedState.Ready, seed.Once, store?.SizeOf(seed.File) ?? 0),
    };

    /// <summary>Gives the VM a seed in place of any that it has. The same again changes nothing, also while it runs.</summary>
    /// <exception cref="ApiException">It is not sound, cannot be kept, or the VM runs or is saved.</exception>
    internal async Task<VmSeedInfo> PutAsync(VmSeedWish wish, CancellationToken cancellation)
    {
        byte[] volume = Volume(wish);
        string sum = Convert.ToHexStringLower(SHA256.HashData(volume));
        bool once = wish.Once == true;
        await vm.Operations.RunAsync(VmOperation.ReplaceSpec, vm.Name, () =>
        {
            SeedRecord? old = vm.Store.Record.Seed;
            if (old is null || old.Once != once || !string.Equals(old.Sha256, sum, StringComparison.Ordinal))
            {
                vm.RequireIdle("given a seed", null);
                RequireRoom();
                Exchange(old, file => new SeedRecord(file, sum, once), volume);
            }

            return Task.CompletedTask;
        }, cancellation).ConfigureAwait(false);
        return Info;
    }

    /// <summary>Deletes it; none is no error.</summary>
    /// <exception cref="ApiException">The VM runs or is saved.</exception>
    internal Task DeleteAsync(CancellationToken cancellation) => vm.Operations.RunAsync(VmOperation.ReplaceSpec, vm.Name, () =>
    {
        if (vm.Store.Record.Seed is { } seed)
        {
            vm.RequireIdle("left without its seed", null);
            vm.Store.Change(record => record with { Seed = null });
            vm.Store.Commit();
            store?.Delete(seed.File);
            vm.Events.Publish("changed", vm.Name, message: "it has no seed any more");
        }

        return Task.CompletedTask;
    }, cancellation);

    /// <summary>The VM runs: from now on a seed for one run is used.</summary>
    internal void MarkUsed()
    {
        if (vm.Store.Record.Seed is { Once: true, IsUsed: false })
        {
            vm.Store.Change(record => record with { Seed = record.Seed! with { IsUsed = true } });
            vm.Store.CommitOrLog();
            Settle(); // a short guest may have ended within its start
        }
    }

    /// <summary>Deletes a seed whose run is over. May be called at any time, and again.</summary>
    internal void Settle()
    {
        lock (_deleting)
        {
            if (vm.Store.Record is { Saved: null, Seed: { Once: true, IsUsed: true, IsDeleted: false } seed } && !vm.IsAlive)
            {
                store?.Delete(seed.File); // first: a record that says so is true
                vm.Store.Change(record => record with { Seed = seed with { IsDeleted = true } });
                vm.Store.CommitOrLog();
            }
        }
    }

    /// <summary>The VM is gone.</summary>
    internal void Forget()
    {
        if (vm.Store.Record.Seed is { } seed)
        {
            store?.Delete(seed.File);
        }
    }

    private byte[] Volume(VmSeedWish wish)
    {
        SeedContent content = new(wish.UserData, wish.NetworkConfig, wish.SshKeys ?? [], wish.Hostname, wish.PasswordHash);
        IReadOnlyList<SpecProblem> problems = content.IsEmpty
            ? [new SpecProblem("", "says nothing: give userData, networkConfig, sshKeys, hostname or passwordHash")]
            : content.Problems();
        return problems.Count == 0
            ? SeedVolume.Make([.. content.Files(vm.Name).Select(file => new SeedFile(file.Name, file.Bytes))])
            : throw new ApiException(422, "seed-invalid", "the seed is not sound", string.Join('\n', problems),
                [.. problems.Select(p => new FieldProblem(p.Path, p.Message, 0))]);
    }

    // The VM with one disk more has to be sound.
    private void RequireRoom()
    {
        VmSpec bare = vm.Store.RequireBareSpec();
        if (SpecValidation.Validate(bare with { Disks = [.. bare.Disks, new DiskSpec { Path = "/seed", ReadOnly = true }] }) is
            { Count: > 0 } problems)
        {
            throw new ApiException(422, "seed-invalid", "the VM has no room for a seed",
                $"{vm.Name}: the seed is one more disk: {problems[0]}");
        }
    }

    private void Exchange(SeedRecord? old, Func<string, SeedRecord> made, byte[] volume)
    {
        if (store is null)
        {
            throw new InvalidOperationException("nobody keeps seeds");
        }

        string file;
        try
        {
            file = store.Add(vm.Store.Record.Id, volume);
        }
        catch (Exception cause) when (cause is IOException or UnauthorizedAccessException)
        {
            throw new ApiException(507, "disk-create-failed", "the seed could not be kept", $"{vm.Name}: {cause.Message}", inner: cause);
        }

        vm.Store.Change(record => record with { Seed = made(file) });
        try
        {
            vm.Store.Commit();
        }
        catch
        {
            vm.Store.Change(record => record with { Seed = old });
            store.Delete(file);
            throw;
        }

        if (old is not null)
        {
            store.Delete(old.File);
        }

        vm.Events.Publish("changed", vm.Name, message: "it has a seed for its next start");
    }
}

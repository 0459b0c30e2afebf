using Vmm.Contracts.Rest;
using Vmm.Daemon.Storage;
using Vmm.Daemon.Workers;
using Vmm.Interop;
using Vmm.Spec;
using Vmm.Storage;
using Vmm.Storage.Qcow2;
using Vmm.Storage.Qcow2.Tools;
using static Vmm.Daemon.Vms.WorkerCalls;

namespace Vmm.Daemon.Vms;

/// <summary>What a copy of a disk is to be.</summary>
/// <param name="Vm">The VM, for errors.</param>
/// <param name="Device">Name of the disk.</param>
/// <param name="From">The disk as it is.</param>
/// <param name="To">The disk as it shall be.</param>
/// <param name="TopOnly">Only what its top image has itself.</param>
internal sealed record DiskCopyPlan(string Vm, string Device, DiskSpec From, DiskSpec To, bool TopOnly)
{
    /// <summary>The plan of a wish. Nothing is made yet.</summary>
    /// <exception cref="ApiException">It cannot be copied like that.</exception>
    internal static DiskCopyPlan Of(string vm, string device, DiskSpec disk, DiskCopyWish wish, StorageFolders storage)
    {
        NbdSpec? server = null;
        string why = "";
        bool isServer = NbdUri.Is(wish.To) && NbdUri.TryRead(wish.To, out server, out why);
        DiskFormat? format = wish.Format switch
        {
            "raw" => DiskFormat.Raw,
            "qcow2" => DiskFormat.Qcow2,
            null => isServer || disk.IsRemote ? DiskFormat.Raw : disk.Format,
            _ => null,
        };
        string? wrong = NbdUri.Is(wish.To) && !isServer ? $"to: {wish.To}: {why}"
            : !isServer && !Path.IsPathRooted(wish.To) ? $"to: {wish.To}, expected a whole path, or the URI of an NBD disk"
            : wish.BytesPerSecond is 0 ? "bytesPerSecond: 0, expected more, or none"
            : wish.Cache is not (null or "direct" or "buffered") ? $"cache: {wish.Cache}, expected direct or buffered"
            : format is null ? $"format: {wish.Format}, expected raw or qcow2"
            : isServer ? OfServer(server!, wish, format.Value, storage)
            : disk.ReadOnly ? $"{disk.Path} is read-only for this VM: it can be copied as it lies there (vmmctl disk convert)"
            : wish.TopOnly && disk.Format != DiskFormat.Qcow2 ? $"topOnly: {disk.Path} is no image: there is nothing below it"
            : wish.TopOnly && format != DiskFormat.Qcow2 ? "topOnly: only a qcow2 image stands on others: expected format qcow2"
            : null;
        if (wrong is not null)
        {
            throw new ApiException(422, "copy-invalid", "the disk cannot be copied like that", wrong);
        }

        DiskCache cache = wish.Cache switch { "direct" => DiskCache.Direct, "buffered" => DiskCache.Buffered, _ => disk.Cache };
        SourceSpec source = isServer ? new SourceSpec { Kind = SourceKind.Nbd, Path = server!.Uri, Nbd = server }
            : new SourceSpec { Path = wish.To, Format = format!.Value, Cache = cache };
        return new DiskCopyPlan(vm, device, disk, disk with { Source = source, Backing = null }, wish.TopOnly);
    }

    /// <summary>Makes the target's file; a server has its disk.</summary>
    /// <param name="worker">Knows how large a disk of a server is.</param>
    /// <param name="storage">Where files may be.</param>
    /// <param name="cancellation">Ends the waiting.</param>
    /// <exception cref="ApiException">The disk cannot be read, or the file cannot be made.</exception>
    internal async Task MakeAsync(IWorker worker, StorageFolders storage, CancellationToken cancellation)
    {
        if (To.Nbd is not null)
        {
            return;
        }

        DiskFacts facts = !From.IsRemote
            ? DiskFacts.Read(Vm, Device, From, storage)
            : new DiskFacts(await CallAsync(() => worker.DiskSizeAsync(Device, cancellation)).ConfigureAwait(false), 0, null);
        try
        {
            if (facts.Header is null)
            {
                CopyTarget.RequireRoom(To.Path, facts.Allocated, storage); // how much of an image is seen nobody knows
            }

            if (To.Format == DiskFormat.Raw)
            {
                CopyTarget.MakeRaw(To.Path, facts.Bytes, storage);
            }
            else
            {
                CopyTarget.MakeImage(To.Path, OptionsOf(facts, storage), storage);
            }
        }
        catch (Exception cause) when (cause is StorageException or BlockException or KernelException)
        {
            throw new ApiException(422, "disk-refused", "the disk cannot be copied there", $"{Vm}: {cause.Message}", inner: cause);
        }
    }

    private static string? OfServer(NbdSpec server, DiskCopyWish wish, DiskFormat format, StorageFolders storage) =>
        storage.Problem(server) is { } problem ? $"to: {wish.To}: {problem}"
        : format != DiskFormat.Raw || wish.TopOnly ? "format: a server gives a raw disk: expected raw, or a file to copy to"
        : wish.Cache is not null ? "cache: a disk of a server has none"
        : null;

    private Qcow2CreateOptions OptionsOf(DiskFacts facts, StorageFolders storage)
    {
        Qcow2CreateOptions plain = new() { DiskSize = facts.Bytes };
        if (!TopOnly)
        {
            return plain;
        }

        List<string> below = [];
        try
        {
            DiskImageChain.FindNames(From.Path, (path, _) => storage.Open(path, writable: false), below);
        }
        catch (Exception cause) when (below.Count > 0 && cause is StorageException or BlockException or KernelException)
        {
            _ = cause; // what is farther below is opened with the target, or not
        }

        // Clusters as those of the disk: a part of one that is copied takes nothing else from below.
        Qcow2Geometry clusters = facts.Header!.Geometry;
        return below.Count == 0
            ? throw new StorageException(From.Path, "has no backing file: all of it is in the top image, which is copied without topOnly")
            : plain with
            {
                ClusterBits = clusters.ClusterBits,
                ExtendedL2 = clusters.ExtendedL2,
                BackingFile = below[0],
                BackingFormat = facts.Header.BackingFormat,
            };
    }
}

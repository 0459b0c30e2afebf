using System.Text.Json;
using Vmm.Contracts.Control;
using Vmm.Contracts.Rest;
using Vmm.Cpu;
using Vmm.Daemon.Storage;
using Vmm.Daemon.Vms;
using Vmm.Interop;
using Vmm.Spec;

namespace Vmm.Daemon.Moves;

/// <summary>What another host offers, looked at before a byte of the VM comes. Everything in it is a stranger's word.</summary>
/// <param name="Offer">The offer.</param>
/// <param name="Stored">The spec that the VM is to have here.</param>
/// <param name="Current">The same with the devices that it has now.</param>
internal sealed record OfferCheck(MigrationOffer Offer, VmSpec Stored, VmSpec Current)
{
    private const int IdLetters = 32, MostPath = 4096;

    /// <summary>Looks at all that can be seen without changing anything.</summary>
    /// <param name="offer">The offer, as it came.</param>
    /// <param name="storage">Where disks may be.</param>
    /// <param name="processor">What KVM of this host can show to guests.</param>
    /// <param name="cancellation">Gives up.</param>
    /// <exception cref="ApiException">It is refused; what is in the way is named.</exception>
    internal static OfferCheck Require(
        MigrationOffer offer, StorageFolders storage, Func<CpuDescription?> processor, CancellationToken cancellation)
    {
        RequireId(offer.Id);
        if (!Guid.TryParseExact(offer.Vm, "D", out Guid id) || !string.Equals(id.ToString(), offer.Vm, StringComparison.Ordinal)
            || offer.Channels is < 1 or > MoveBody.MostChannels || offer.TimeoutSeconds is < 1 or > 2 * MoveLimits.MostTimeout
            || offer.Files.Count > MigrationOffer.MostFiles || (offer.Folder.Length > 0 && !Path.IsPathRooted(offer.Folder)))
        {
            throw Refused("its id, channels, time, files or folder are no vmmd's");
        }

        VmSpec stored = SpecFileCheck.Read(offer.Spec, offer.Folder, cancellation);
        VmSpec current = ReadCurrent(offer.Current);
        if (!string.Equals(stored.Name, offer.Name, StringComparison.Ordinal)
            || !string.Equals(current.Name, offer.Name, StringComparison.Ordinal))
        {
            throw Refused("its specs have other names than the VM");
        }

        if (MoveObstacle.Of(stored) is { } first)
        {
            throw Refused(first);
        }

        if (MoveObstacle.Of(current) is { } obstacle)
        {
            throw Refused(obstacle);
        }

        RequireCpu(offer.Cpu, processor);
        SpecFileCheck.Require(storage, stored);
        SpecFileCheck.Require(storage, current);
        List<MigrationFile> files =
            [.. offer.Files.Select(text => MigrationFile.Parse(text) ?? throw Refused("what it says of a file of a disk is no vmmd's"))];
        files.ForEach(file => RequireSame(file, storage));
        HashSet<string> offered = [.. files.Where(file => file.IsTop).Select(file => file.Path)];
        foreach (DiskSpec disk in current.Disks.Where(disk => !disk.IsRemote && !offered.Contains(disk.Path)))
        {
            throw Refused($"nothing is said of the file of its disk {disk.Path}");
        }

        return new OfferCheck(offer, stored, current);
    }

    /// <exception cref="ApiException">It names no move.</exception>
    internal static string RequireId(string? id) => id is { Length: IdLetters } && id.All(char.IsAsciiHexDigitLower)
        ? id
        : throw new ApiException(422, "migration-refused", "the VM is not taken", "a move has an id of 32 hexadecimal digits");

    // Found out now: when the machine is built, all of its memory has come.
    private static void RequireCpu(string? offered, Func<CpuDescription?> processor)
    {
        try
        {
            if (offered is not null && CpuOffer.Missing(offered, processor()) is { } missing)
            {
                throw Refused($"its guest sees a processor that this host cannot show: {missing}");
            }
        }
        catch (InvalidDataException cause)
        {
            throw Refused($"its processor cannot be read: {cause.Message}");
        }
    }

    // The same path is not the same file: on storage that both hosts see, the lock of the worker that has the VM is seen, too.
    private static void RequireSame(MigrationFile file, StorageFolders storage)
    {
        string path = file.Path;
        if (path.Length > MostPath || path.Contains('\0', StringComparison.Ordinal))
        {
            throw Refused("the path of a disk is none");
        }

        try
        {
            using FileDescriptorHandle here = storage.Open(path, writable: false);
            BlockFileInfo info = BlockFile.Inspect(here);
            bool isFile = info.Kind == BlockFileKind.RegularFile;
            if (isFile != file.Inode is not null || (isFile && BlockFile.Identify(here).Inode != file.Inode)
                || (info.Size != file.Bytes && !(isFile && file.IsTop))) // an image grows while its guest writes
            {
                throw Refused($"{path} is another file here than there: disks have to be on storage that both hosts have at the same path");
            }

            if (isFile && file.IsTop && BlockFile.FindLock(here, 0, 0) is null)
            {
                throw Refused($"{path} has no lock here of the worker that has the VM there: it is another file, or on storage that does "
                    + "not carry locks from host to host");
            }
        }
        catch (Exception cause) when (cause is StorageException or KernelException)
        {
            throw Refused(cause.Message);
        }
    }

    private static VmSpec ReadCurrent(string text)
    {
        try
        {
            using JsonDocument json = JsonDocument.Parse(text);
            return VmSpecJson.TryRead(json.RootElement, out string problem) ?? throw Refused($"its devices cannot be read: {problem}");
        }
        catch (JsonException cause)
        {
            throw Refused($"its devices cannot be read: {cause.Message}");
        }
    }

    private static ApiException Refused(string why) => new(422, "migration-refused", "the VM is not taken", why);
}

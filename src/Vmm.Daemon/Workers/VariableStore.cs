using Vmm.Interop;
using Vmm.Placement;
using Vmm.Storage;

namespace Vmm.Daemon.Workers;

/// <summary>The variables of VMs that start by firmware: a file each, named by the VM's id, as long as the VM exists.</summary>
/// <param name="folder">Where; made when it is needed, for the daemon's own user only.</param>
internal sealed class VariableStore(string folder)
{
    private const int MostBytes = 1 << 20;

    /// <summary>Opens those of a VM, made as the firmware has them when there are none, and locks them.</summary>
    /// <exception cref="BlockException">They are in use, or cannot be opened.</exception>
    /// <exception cref="IOException">They cannot be made.</exception>
    /// <exception cref="UnauthorizedAccessException">Nor may they be.</exception>
    internal RawFileBackend Open(string vmId, FirmwareFiles firmware)
    {
        Directory.CreateDirectory(folder, UnixFileMode.UserRead | UnixFileMode.UserWrite | UnixFileMode.UserExecute);
        string path = PathOf(vmId);
        FirmwareFiles.CreateVariables(path, firmware.Variables);
        return RawFileBackend.Open(path, new RawFileOptions { Cache = DiskCacheMode.Buffered });
    }

    /// <summary>Those of a VM as they are now; null: it has none, or they cannot be read.</summary>
    internal byte[]? Read(string vmId)
    {
        try
        {
            FileInfo file = new(PathOf(vmId));
            return file is { Exists: true, Length: <= MostBytes } ? File.ReadAllBytes(file.FullName) : null;
        }
        catch (Exception cause) when (cause is IOException or UnauthorizedAccessException)
        {
            return null;
        }
    }

    /// <summary>Gives a VM the variables that it had on another host, before its first start here.</summary>
    /// <exception cref="IOException">They cannot be written.</exception>
    /// <exception cref="UnauthorizedAccessException">Nor may they be.</exception>
    internal void Put(string vmId, ReadOnlySpan<byte> content)
    {
        Directory.CreateDirectory(folder, UnixFileMode.UserRead | UnixFileMode.UserWrite | UnixFileMode.UserExecute);
        string path = PathOf(vmId), part = path + ".part";
        using (FileStream file = new(part, new FileStreamOptions
        {
            Mode = FileMode.Create,
            Access = FileAccess.Write,
            Share = FileShare.None,
            UnixCreateMode = UnixFileMode.UserRead | UnixFileMode.UserWrite,
        }))
        {
            file.Write(content);
            file.Flush(flushToDisk: true);
        }

        File.Move(part, path, overwrite: true); // what is left there is of no VM: its id was not in the inventory
        HostFolder.Flush(folder);
    }

    /// <summary>Forgets those of a VM that is gone.</summary>
    internal void Delete(string vmId)
    {
        try
        {
            File.Delete(PathOf(vmId));
        }
        catch (Exception cause) when (cause is IOException or UnauthorizedAccessException)
        {
            _ = cause; // the folder was never made, or what is left there is in nobody's way: its id does not come again
        }
    }

    private string PathOf(string vmId) => Path.Combine(folder, vmId + ".fd");
}

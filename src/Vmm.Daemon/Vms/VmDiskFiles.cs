using Vmm.Daemon.Storage;
using Vmm.Daemon.Workers;
using Vmm.Interop;
using Vmm.Spec;
using Vmm.Storage;
using Vmm.Storage.Qcow2;
using Syscall = Mono.Unix.Native.Syscall;

namespace Vmm.Daemon.Vms;

/// <summary>
/// The host files of a running VM's disks, with the images below them: that one was deleted, cut short, or that its file system cannot be
/// written any more is told once, before the guest has lost more. Files are looked at by name, as this daemon knows them.
/// </summary>
/// <param name="vm">The VM.</param>
/// <param name="devices">Knows its disks.</param>
/// <param name="storage">Where they may be.</param>
/// <param name="time">Now.</param>
internal sealed class VmDiskFiles(VmSupervisor vm, VmDevices devices, StorageFolders storage, TimeProvider time) : IRunObserver
{
    /// <summary>What comes and goes is told again after so long at the earliest.</summary>
    internal static readonly TimeSpan Silence = TimeSpan.FromMinutes(10);

    private readonly Lock _looking = new();
    private readonly Dictionary<string, Watched> _files = new(StringComparer.Ordinal); // of this run, by path
    private readonly Dictionary<string, string> _chains = new(StringComparer.Ordinal); // the top whose chain is known, by disk
    private volatile bool _isNew;

    public void RunBegan(IWorker worker) => _isNew = true;

    public void RunEnded() => _isNew = true;

    /// <summary>
    /// Looks at all files of the run; may take as long as their file systems take. One look at a time, others do nothing.
    /// </summary>
    internal void Look()
    {
        if (vm.Worker is not { } worker || !_looking.TryEnter())
        {
            return;
        }

        try
        {
            if (_isNew)
            {
                _isNew = false;
                _files.Clear();
                _chains.Clear();
            }

            // A disk of a server has no file here.
            List<(string Disk, DiskSpec Spec)> disks = [.. devices.Disks().Where(disk => !disk.Spec.IsRemote)];
            foreach ((string disk, DiskSpec spec) in disks)
            {
                if (!string.Equals(_chains.GetValueOrDefault(disk), spec.Path, StringComparison.Ordinal))
                {
                    LearnChain(disk, spec);
                }
            }

            foreach ((string path, Watched file) in _files.ToList())
            {
                if (!disks.Any(d => string.Equals(d.Disk, file.Disk, StringComparison.Ordinal)))
                {
                    _files.Remove(path); // it was taken out
                    _chains.Remove(file.Disk);
                }
                else if (vm.IsCurrent(worker))
                {
                    LookAt(path, file);
                }
            }
        }
        finally
        {
            _looking.Exit();
        }
    }

    /// <summary>The file of a disk, which is no server's, and those below it, as far as its images say.</summary>
    internal IReadOnlyList<string> ChainOf(DiskSpec disk) => disk.Format == DiskFormat.Qcow2 ? ChainOf(disk.Path, out _) : [disk.Path];

    /// <summary>Whether a disk of the VM, which may be off, is this file or has it below, as far as its images say.</summary>
    internal bool HasInChain(string path)
    {
        FileIdentity? wanted = BlockFile.Identify(path);
        return devices.Uses(path) || (vm.Store.Spec?.Disks ?? []).Any(disk => !disk.IsRemote
            && (disk.Format == DiskFormat.Qcow2 ? ChainOf(Path.GetFullPath(disk.Path, "/"), out _) : [disk.Path])
                .Any(file => wanted is not null && BlockFile.Identify(file) == wanted));
    }

    // What the images say now: a chain that was shortened or changed its top is another one.
    private void LearnChain(string disk, DiskSpec spec)
    {
        string top = spec.Path;
        _chains[disk] = top;
        List<string> chain = spec.IsRemote ? [] : spec.Format == DiskFormat.Qcow2 ? ChainOf(top, out _) : [top];
        foreach (string path in _files.Where(f => string.Equals(f.Value.Disk, disk, StringComparison.Ordinal)).Select(f => f.Key).ToList())
        {
            if (!chain.Contains(path, StringComparer.Ordinal))
            {
                _files.Remove(path);
            }
        }

        for (int i = 0; i < chain.Count; i++)
        {
            Watched now = new(disk, IsBelow: i > 0, Writable: !spec.ReadOnly && i == 0) { Top = top };
            _files[chain[i]] = _files.GetValueOrDefault(chain[i]) is { } known // a top that is a base now, say
                ? known with { Disk = now.Disk, IsBelow = now.IsBelow, Writable = now.Writable, Top = top }
                : now;
        }
    }

    // "isWhole": false when an image cannot be read by its name, and nobody knows what is below it.
    private List<string> ChainOf(string top, out bool isWhole)
    {
        List<string> found = [top];
        isWhole = true;
        try
        {
            DiskImageChain.FindNames(top, (path, _) => storage.Open(path, writable: false), found);
        }
        catch (Exception cause) when (cause is StorageException or BlockException or KernelException)
        {
            _ = cause; // what is known of the rest is looked at
            isWhole = false;
        }

        return found;
    }

    private void LookAt(string path, Watched file)
    {
        FileIdentity? identity = BlockFile.Identify(path);
        file.Identity ??= identity;
        bool isGone = identity is null || identity != file.Identity;
        ulong size = isGone ? 0 : SizeOf(path);
        file.Size = Math.Max(file.Size, size);
        bool isReadOnly = file.Writable && !isGone && IsReadOnly(path);
        file.WasWritable |= file.Writable && !isGone && !isReadOnly;
        if (isGone && file.IsBelow && !ChainOf(file.Top, out bool isWhole).Contains(path, StringComparer.Ordinal) && isWhole)
        {
            _files.Remove(path); // the images above need it no more
            return;
        }

        Tell("disk-file-gone", isGone, path, file, "has no name any more: it was deleted, moved or replaced. The VM goes on with the open "
            + "file, which is lost when the VM ends: " + (file.IsBelow ? "bring it back, or flatten the disk (vmmctl disk convert) first"
            : "copy the disk to a new file while the VM runs (vmmctl vm copy-disk), or save its content from inside the guest"));
        Tell("disk-file-short", !isGone && size > 0 && size < file.Size, path, file, $"was cut from {file.Size} to {size} bytes: what lay "
            + "behind is lost, and requests there fail. Stop the VM and bring the file back from a copy");
        Tell("disk-file-read-only", isReadOnly && file.WasWritable, path, file, "is on a file system that became read-only: writes fail. "
            + "Look at the host's kernel log, repair and remount it; then resume the VM, or start it again");
    }

    private static ulong SizeOf(string path)
    {
        try
        {
            using FileDescriptorHandle file = BlockFile.Open(path, writable: false, direct: false);
            return BlockFile.Inspect(file).Size;
        }
        catch (KernelException)
        {
            return 0; // not known
        }
    }

    private static bool IsReadOnly(string path) =>
        Syscall.statvfs(path, out Mono.Unix.Native.Statvfs facts) == 0
            && (facts.f_flag & Mono.Unix.Native.MountFlags.ST_RDONLY) != 0;

    // Once, until it is well again, and then not for a while.
    private void Tell(string kind, bool isSo, string path, Watched file, string what)
    {
        if (!isSo)
        {
            file.Lasting.Remove(kind);
            return;
        }

        DateTimeOffset now = time.GetUtcNow();
        if (!file.Lasting.Add(kind) || (file.Told.TryGetValue(kind, out DateTimeOffset last) && now - last < Silence))
        {
            return;
        }

        file.Told[kind] = now;
        string place = file.IsBelow ? $"{file.Disk}: the image below, {path}," : $"{file.Disk} ({path})";
        vm.Events.Publish(kind, vm.Name, message: $"{place} {what}");
        DaemonLog.DiskFileLost(vm.Log, vm.Name, place, what);
    }

    private sealed record Watched(string Disk, bool IsBelow, bool Writable)
    {
        public required string Top { get; init; }

        public FileIdentity? Identity { get; set; }

        public ulong Size { get; set; }

        public bool WasWritable { get; set; }

        public HashSet<string> Lasting { get; } = new(StringComparer.Ordinal);

        public Dictionary<string, DateTimeOffset> Told { get; } = new(StringComparer.Ordinal);
    }
}

using Vmm.Contracts.Control;
using Vmm.Daemon.Storage;
using Vmm.Daemon.Vms;
using Vmm.HostNet;
using Vmm.Interop;
using Vmm.Interop.Kvm;
using Vmm.Placement;
using Vmm.Spec;
using Vmm.Spec.Devices;
using Vmm.Storage;

namespace Vmm.Daemon.Workers;

/// <summary>
/// What a worker is handed: opened here with the daemon's privileges, closed here once it was passed. Locks go along with the descriptors.
/// </summary>
internal sealed class WorkerResources : IDisposable
{
    private readonly DiskAccess _access;
    private readonly NetResources _nets;
    private readonly List<IDisposable> _owned = [];
    private readonly Dictionary<int, DiskFiles> _disks = [];
    private readonly List<string> _remarks = []; // a line each

    private WorkerResources(DiskAccess access) => (_access, _nets) = (access, new NetResources(access, this));

    internal List<string> Names { get; } = [];

    internal List<FileDescriptorHandle> Handles { get; } = [];

    /// <summary>Bytes of the largest disk that is a regular file; a block device cannot grow by writing.</summary>
    internal ulong LargestFile { get; private set; }

    /// <summary>Tells what somebody may want to know of what was opened for this VM.</summary>
    internal void TellRemarks(string vmId)
    {
        _remarks.ForEach(remark => _access.Remarked?.Invoke(vmId, remark));
        _nets.Remarks.ForEach(remark => _access.NetRemarked?.Invoke(vmId, remark));
    }

    /// <summary>True when a disk is an image: the worker has to be told so, and to know what that is.</summary>
    internal bool HasImages => _disks.Values.Any(disk => disk.IsImage);

    /// <summary>True when a disk is a server's: the worker gets a socket in place of a file.</summary>
    internal bool HasServers => _disks.Values.Any(disk => disk.IsServer);

    /// <summary>True when a disk is an image of a Ceph cluster: its worker is to know that.</summary>
    internal bool HasClusters { get; private set; }

    /// <summary>True when a network device is no tap of its spec: its worker is to know that.</summary>
    internal bool HasOtherNets => _nets.HasOthers;

    /// <summary>True when not all memory is resident: a worker that does not know of that would take it all.</summary>
    internal bool HasPaging { get; private set; }

    /// <summary>True when its memory comes while it runs: a worker that does not know of that would read all of it first.</summary>
    internal bool IsLazy { get; private set; }

    /// <summary>The programs of shared folders, which are this object's until somebody takes them; null: there are none.</summary>
    internal WorkerShares? Shares { get; private set; }

    /// <summary>The programs of shared folders, now the caller's.</summary>
    internal WorkerShares TakeShares()
    {
        WorkerShares shares = Shares!;
        _owned.Remove(shares);
        return shares;
    }

    /// <summary>A disk of the spec that was opened, with the images that are below it.</summary>
    internal DiskSpec WithBacking(int index, DiskSpec disk) => _disks[index].IsImage ? disk with { Backing = _disks[index].Backing } : disk;

    /// <summary>The spec that was opened, with the images that are below its disks.</summary>
    internal VmSpec WithBacking(VmSpec spec) =>
        HasImages ? spec with { Disks = [.. spec.Disks.Select((disk, i) => WithBacking(i, disk))] } : spec;

    /// <summary>Opens everything a spec names.</summary>
    /// <exception cref="WorkerException">Something cannot be opened.</exception>
    internal static WorkerResources Open(VmSpec spec, DiskAccess access) => Open(access, resources =>
    {
        resources.AddBootFiles(spec);
        resources.AddDevices(spec);
    });

    /// <summary>Opens the devices of a spec, for a VM that goes on from saved files, which are not owned.</summary>
    /// <exception cref="WorkerException">Something cannot be opened.</exception>
    internal static WorkerResources OpenSaved(
        VmSpec spec, IReadOnlyList<(string Name, FileDescriptorHandle File)> saved, bool lazily, DiskAccess access) =>
        Open(access, resources =>
    {
        resources.IsLazy = lazily;
        if (spec.Boot.IsFirmware)
        {
            resources.AddFirmware();
        }

        resources.AddDevices(spec);
        foreach ((string name, FileDescriptorHandle file) in saved)
        {
            resources.Name(ResourceNames.Saved(name), file);
        }
    });

    private void AddBootFiles(VmSpec spec)
    {
        if (spec.Boot.IsFirmware)
        {
            AddFirmware();
            return;
        }

        AddFile(ResourceNames.Kernel, spec.Boot.Kernel, "kernel-open-failed");
        if (spec.Boot.Initrd is { } initrd)
        {
            AddFile(ResourceNames.Initrd, initrd, "initrd-open-failed");
        }
    }

    /// <summary>The host's firmware, which is in no storage folder, and the VM's variables.</summary>
    private void AddFirmware()
    {
        try
        {
            FirmwareFiles files = FirmwareFiles.Find();
            Add(ResourceNames.Firmware, BlockFile.Open(files.Code, writable: false, direct: false));
            RawFileBackend variables = (_access.Variables ?? throw new HostMismatchException("nobody keeps the variables of firmware"))
                .Open(_access.VmId, files);
            _owned.Add(variables);
            Name(ResourceNames.Variables, variables.Buffered);
        }
        catch (Exception cause) when (cause is HostMismatchException or KernelException or IOException or UnauthorizedAccessException
            or BlockException)
        {
            throw new WorkerException(ControlCodes.HostMismatch, cause.Message, cause);
        }
    }

    private void AddDevices(VmSpec spec)
    {
        _nets.VmName = spec.Name;
        if (spec.Paging is { } paging)
        {
            AddPaging(spec, paging);
        }
        else if (IsLazy)
        {
            Add(ResourceNames.Userfault, PagingDevice.Open());
        }

        for (int i = 0; i < spec.Disks.Count; i++)
        {
            AddDisk(i, spec.Disks[i]);
        }

        for (int i = 0; i < spec.Nets.Count; i++)
        {
            _nets.Add(i, PagingValidation.Paged(IsLazy || spec.Paging is not null, spec.Nets[i]));
        }

        for (int i = 0; i < spec.Shares.Count; i++)
        {
            AddShare(i, spec.Shares[i]);
        }

        for (int i = 0; i < spec.Devices.Count; i++)
        {
            foreach (DeviceFile file in spec.Devices[i].Files)
            {
                AddDeviceFile(ResourceNames.DeviceFile(i, file.Role), file);
            }

            if (spec.Devices[i].BackEnd is { } socket)
            {
                Add(ResourceNames.BackEnd(i), new BackEndConnector(_access.Storage, socket).Connect());
            }
        }
    }

    /// <summary>Through what a VM with a resident limit hears of page faults, and where its pages go.</summary>
    private void AddPaging(VmSpec spec, PagingSpec paging)
    {
        Add(ResourceNames.Userfault, PagingDevice.Open());
        try
        {
            Add(ResourceNames.Swap, _access.OpenSwap(paging, _remarks.Add));
        }
        catch (Exception cause) when (cause is HostMismatchException or IOException or UnauthorizedAccessException)
        {
            throw new WorkerException(ControlCodes.HostMismatch, cause.Message, cause);
        }
        catch (StorageException cause)
        {
            throw new WorkerException(ControlCodes.HostMismatch, $"memory.swap: {cause.Message}", cause);
        }

        HasPaging = true;
        LargestFile = Math.Max(LargestFile, PagingSpec.SwapLimit(spec));
    }

    /// <summary>Opens a disk for a running VM.</summary>
    /// <exception cref="WorkerException">It cannot be opened.</exception>
    internal static WorkerResources Open(DiskSpec disk, DiskAccess access) => Open(access, resources => resources.AddDisk(0, disk));

    /// <summary>Opens a tap for a running VM.</summary>
    /// <exception cref="WorkerException">It cannot be opened.</exception>
    internal static WorkerResources Open(NetSpec net, DiskAccess access) => Open(access, resources => resources._nets.Add(0, net));

    /// <summary>What a worker in the pool gets ready with.</summary>
    /// <exception cref="WorkerException">KVM cannot be opened.</exception>
    internal static WorkerResources ForPreparation() => Open(DiskAccess.None, resources => resources.AddKvm());

    /// <summary>All of it, or nothing.</summary>
    private static WorkerResources Open(DiskAccess access, Action<WorkerResources> addAll)
    {
        WorkerResources resources = new(access);
        try
        {
            addAll(resources);
            return resources;
        }
        catch
        {
            resources.Dispose();
            throw;
        }
    }

    /// <summary>Adds a descriptor that this object closes.</summary>
    internal void Add(string name, FileDescriptorHandle descriptor)
    {
        Own(descriptor);
        Name(name, descriptor);
    }

    /// <summary>This object closes it.</summary>
    internal void Own(IDisposable owned) => _owned.Add(owned);

    /// <summary>Adds a descriptor that is another's.</summary>
    internal void Name(string name, FileDescriptorHandle descriptor)
    {
        Names.Add(name);
        Handles.Add(descriptor);
    }

    public void Dispose()
    {
        foreach (IDisposable owned in _owned)
        {
            owned.Dispose();
        }

        _owned.Clear();
    }

    /// <summary>For a worker that was not prepared.</summary>
    /// <exception cref="WorkerException">KVM cannot be opened.</exception>
    internal void AddKvm()
    {
        try
        {
            Add(ResourceNames.Kvm, KvmHandle.Open());
        }
        catch (KvmUnavailableException cause)
        {
            throw new WorkerException(ControlCodes.KvmUnavailable, cause.Message, cause);
        }
    }

    private void AddFile(string name, string path, string code)
    {
        try
        {
            Add(name, _access.Storage.Open(path, writable: false));
            _ = BlockFile.Inspect(Handles[^1]); // what is no file with a length is refused here, with its path
        }
        catch (StorageException cause)
        {
            throw new WorkerException(code, cause.Message, cause);
        }
        catch (KernelException cause)
        {
            throw new WorkerException(code, $"{path}: file: {cause.Message}", cause);
        }
    }

    private void AddDisk(int index, DiskSpec spec)
    {
        DiskFiles files = DiskFiles.Open(spec, _access);
        _owned.Add(files);
        _disks[index] = files;
        HasClusters |= spec.Rbd is not null;
        LargestFile = Math.Max(LargestFile, files.MostBytes);
        foreach ((string name, FileDescriptorHandle descriptor) in files.Descriptors(index))
        {
            Name(name, descriptor);
        }

        if (files.Remark is { } remark)
        {
            _remarks.Add(remark);
        }
    }

    private void AddShare(int index, ShareSpec share)
    {
        if (Shares is null)
        {
            Shares = _access.SharesOf(_access.VmId);
            _owned.Add(Shares);
        }

        Add(ResourceNames.Share(index), Shares.Start(share));
    }

    private void AddDeviceFile(string name, DeviceFile file)
    {
        RawFileBackend opened = DiskFiles.OpenDeviceFile(file, _access);
        _owned.Add(opened);
        BlockFileInfo info = BlockFile.Inspect(opened.Buffered);
        LargestFile = Math.Max(LargestFile, info.Kind == BlockFileKind.RegularFile ? info.Size : 0);
        Name(name, opened.Buffered);
    }
}

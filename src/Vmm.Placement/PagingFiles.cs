using Vmm.Interop;
using Vmm.Memory.Paging;
using Vmm.Spec;

namespace Vmm.Placement;

/// <summary>What a host gives a machine with a resident limit.</summary>
public static class PagingFiles
{
    /// <summary>Where <c>vmmctl run</c> has swap files: on a disk, on any host.</summary>
    public const string UsualFolder = "/var/tmp";

    /// <summary>The device through which a machine hears of its page faults.</summary>
    /// <exception cref="HostMismatchException">The host has none, or it may not be opened: what to do about it.</exception>
    public static FileDescriptorHandle OpenUserfault(string path = UserfaultDevice.Path)
    {
        try
        {
            return UserfaultDevice.Open(path);
        }
        catch (KernelException cause)
        {
            throw new HostMismatchException("a resident limit (memory.resident), as a lazy restore, needs " + path + cause.Errno switch
            {
                Errno.ENOENT => ", which this host does not have: it comes with Linux 6.1, built with CONFIG_USERFAULTFD",
                Errno.EACCES or Errno.EPERM =>
                    ", which may not be opened by this user: let vmmd run the VM, or give this user the file (chgrp, setfacl, a rule of "
                        + "udev). vm.unprivileged_userfaultfd is about the system call, and does not open this file",
                _ => $": {cause.Message}",
            }, cause);
        }
    }

    /// <summary>A swap file, which has no name and goes with its last descriptor.</summary>
    /// <param name="folder">Where it takes its room.</param>
    /// <param name="name">What the folder is called for people.</param>
    /// <param name="note">Takes a remark; null when nobody reads them.</param>
    /// <exception cref="HostMismatchException">It cannot be made.</exception>
    public static FileDescriptorHandle OpenSwap(string folder, string name, Action<string>? note)
    {
        try
        {
            FileDescriptorHandle file = SwapFile.Open(folder, out bool isDirect);
            if (!isDirect)
            {
                note?.Invoke($"the swap file in {name} goes through the host's page cache: its file system has no O_DIRECT");
            }

            return file;
        }
        catch (SwapStoreException cause)
        {
            throw new HostMismatchException(
                $"memory.swap: {cause.Message.Replace(folder, name, StringComparison.Ordinal)}", cause);
        }
    }
}

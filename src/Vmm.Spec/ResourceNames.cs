using System.Globalization;

namespace Vmm.Spec;

/// <summary>What the descriptors are called that a process is handed for the things a spec names.</summary>
public static class ResourceNames
{
    /// <summary>A file of a saved VM (<see cref="SavedVmFiles"/>).</summary>
    public static string Saved(string file) => "saved-" + file;

    /// <summary>A channel through which a VM is moved, from 0.</summary>
    public static string Channel(int index) => string.Create(CultureInfo.InvariantCulture, $"channel{index}");

    /// <summary>/dev/kvm.</summary>
    public const string Kvm = "kvm";

    /// <summary>/dev/userfaultfd, of a VM with a resident limit.</summary>
    public const string Userfault = "userfaultfd";

    /// <summary>The swap file of a VM with a resident limit.</summary>
    public const string Swap = "swap";

    /// <summary>The listening socket of a vsock, of a VM whose own name another worker has still.</summary>
    public const string Vsock = "vsock";

    /// <summary>The kernel file.</summary>
    public const string Kernel = "kernel";

    /// <summary>The initial ramdisk.</summary>
    public const string Initrd = "initrd";

    /// <summary>The firmware's code.</summary>
    public const string Firmware = "firmware";

    /// <summary>The file with the firmware's variables; carries the lock.</summary>
    public const string Variables = "variables";

    /// <summary>A queue of a network device's tap, or the socket of its program.</summary>
    public static string NetQueue(int index, int queue) => $"net{index}.{queue}";

    /// <summary>vhost-net for a queue of a network device.</summary>
    public static string NetVhost(int index, int queue) => $"net{index}.{queue}.vhost";

    /// <summary>The socket to the program of a shared folder.</summary>
    public static string Share(int index) => $"share{index}";

    /// <summary>What a worker asks for that wants another socket to it.</summary>
    public static string ShareAgain(string tag) => "share:" + tag;

    /// <summary>The socket to the program that serves an entry of <c>devices</c>.</summary>
    public static string BackEnd(int index) => $"back-end{index}";

    /// <summary>What a worker asks for that wants another socket to it.</summary>
    public static string BackEndAgain(string socket) => "vhost-user:" + socket;

    /// <summary>A file of an entry of <c>devices</c>.</summary>
    public static string DeviceFile(int index, string role) => $"device{index}.{role}";

    /// <summary>A file of a disk through the page cache; carries the lock.</summary>
    /// <param name="index">The disk.</param>
    /// <param name="layer">0 is the disk's own file, those behind it the images below (<see cref="DiskSpec.Backing"/>).</param>
    public static string Disk(int index, int layer = 0) => layer == 0 ? $"disk{index}" : $"disk{index}.base{layer}";

    /// <summary>The same file with O_DIRECT, when it has that.</summary>
    public static string DirectDisk(int index, int layer = 0) => Disk(index, layer) + ".direct";
}

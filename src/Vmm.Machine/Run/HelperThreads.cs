using Vmm.Devices.Virtio;
using Vmm.Machine.Resources;

namespace Vmm.Machine.Run;

/// <summary>
/// Short threads for work that a vCPU's thread starts but may not do: it has to go on, and may be confined. They are joined at the end of
/// the machine. Any thread.
/// </summary>
internal sealed class HelperThreads(IMachineThreads? starter)
{
    private readonly Lock _gate = new();
    private readonly List<Thread> _threads = [];

    /// <summary>Does something on a thread of its own; null when it is under way, or why no thread can be had.</summary>
    internal Exception? TryStart(string name, Action work)
    {
        Thread thread = new(() => work(), maxStackSize: 256 * 1024) { Name = name, IsBackground = true };
        lock (_gate)
        {
            _threads.RemoveAll(each => !each.IsAlive);
            try
            {
                (starter ?? (IIoThreads)PlainIoThreads.Instance).Start(thread);
                _threads.Add(thread); // once it runs: what is in the list is joined
                return null;
            }
#pragma warning disable CA1031 // The caller ends the VM with a reason, instead of a vCPU that dies of it.
            catch (Exception cause)
#pragma warning restore CA1031
            {
                return cause;
            }
        }
    }

    /// <summary>Waits for those that run; nobody starts another.</summary>
    internal void Join()
    {
        Thread[] threads;
        lock (_gate)
        {
            threads = [.. _threads];
        }

        foreach (Thread thread in threads)
        {
            thread.Join();
        }
    }
}

using System.Globalization;
using System.Runtime.InteropServices;
using Vmm.Interop;
using Vmm.Worker.Confinement;
using Vmm.Worker.Probe;

// KIND is control, vcpu or io: threads of a machine with every part, the last of a device that asks for all that devices ask for. Or
// small-control, small-vcpu:
// of a machine without any device; firmware-vcpu: of one that starts by firmware; rng, disk, image, net, vsock, mem: the threads of such
// a device.
// KIND NUMBER [ARGUMENT]…: makes one system call on a thread of that kind and prints its errno, 0 when it succeeded. An argument is a
// number or @TEXT.
// KIND work: does what the runtime and a thread of that kind have to be able to do.
// KIND able FILE SOCKET: tries by every way but a ring of its own to open and unlink FILE, to make a socket and to connect to SOCKET;
// prints what came of each.
// KIND nbd SOCKET: uses an NBD disk whose server listens there.
// KIND own-ring FILE: the same by a ring that it makes.
// without-rings PROGRAM [ARGUMENT]…: becomes that program where io_uring is switched off.
if (string.Equals(args[0], "without-rings", StringComparison.Ordinal))
{
    throw WithoutRings.Become(args[1..]);
}

string kind = args[0];
Abilities abilities = new();
IoUringPool.Add(4, RingOperations.All);
abilities.FindRing();
IoUringPool.Seal();
string answer = "done";
Action action = args[1] switch
{
    "work" => () => Work.Do(kind),
    "able" => () => answer = abilities.Try(args[2], args[3]),
    "nbd" => new NbdWork(args[2]).Do,
    "own-ring" => () => answer = abilities.TryOwnRing(args[2]),
    _ => () => Call(args[1..]),
};
ThreadFilters filters = new();
filters.Build(Parts.MachineOf(kind));
filters.Enforce();
Exception? failure = null;
switch (kind)
{
    case "control" or "small-control":
        action();
        break;
    case "vcpu" or "small-vcpu" or "firmware-vcpu":
        Run(thread => thread.Start(), filters.VcpuReady, action);
        break;
    case "io" or "rng" or "disk" or "image" or "net" or "vsock" or "mem":
        // As in a machine: a vCPU thread asks for it, and it must not end up under that one's filter.
        SyscallNeeds needs = Parts.Threads(kind);
        Run(thread => thread.Start(), filters.VcpuReady, () => Run(filters.Start, () => filters.Ready(needs), action, Work.PrepareIo));
        break;
    default:
        return 2;
}

Work.Dispose();
filters.Dispose();
Console.WriteLine(failure?.ToString() ?? answer);
return failure is null ? 0 : 1;

void Run(Action<Thread> start, Action confine, Action body, Action? before = null)
{
    Thread thread = new(() =>
    {
        try
        {
            before?.Invoke();
            confine();
            body();
        }
        catch (Exception cause)
        {
            failure = cause;
        }
    });
    start(thread);
    thread.Join();
}

void Call(string[] call)
{
    nint[] values = new nint[6];
    for (int i = 1; i < call.Length; i++)
    {
        values[i - 1] = call[i].StartsWith('@')
            ? Marshal.StringToHGlobalAnsi(call[i][1..])
            : (nint)long.Parse(call[i], CultureInfo.InvariantCulture);
    }

    long result = Libc.SystemCall(
        long.Parse(call[0], CultureInfo.InvariantCulture), values[0], values[1], values[2], values[3], values[4], values[5]);
    answer = $"errno {(result < 0 ? Marshal.GetLastPInvokeError() : 0)}";
}

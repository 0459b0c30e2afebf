using System.Buffers.Binary;
using Vmm.Contracts.Control;
using Vmm.Interop;
using Vmm.Interop.Kvm;
using Vmm.Kvm;
using Vmm.Machine.Boot;
using Vmm.Machine.Resources;
using Vmm.Machine.Run;
using Vmm.Machine.Spec;
using Vmm.Memory;
using Vmm.Storage;

namespace Vmm.Worker;

/// <summary>
/// What a worker does while it waits for its VM: it builds a small one of every common part, runs it to its end and takes it down. A .NET program pays
/// for each method once, when it is first called; a VM that comes through the pool finds all of that paid.
/// </summary>
internal static class Rehearsal
{
    private const uint Entry = 0x10_0000;

    // mov al, 0; out 0xF4, al: the debug-exit port ends the machine.
    private static ReadOnlySpan<byte> Code => [0xB0, 0x00, 0xE6, 0xF4];

    /// <summary>Runs it on a KVM of its own, which is closed afterwards.</summary>
    /// <exception cref="RequestException">The small machine cannot be built; a real one could not either.</exception>
    internal static void Run(KvmHandle kvm)
    {
        VmSpec spec = new() { Name = "rehearsal", Memory = ByteSize.MiB(4), DebugExit = true, Boot = new BootSpec { Kernel = "rehearsal" }, Disks = [new DiskSpec { Path = "rehearsal" }] };
        using ManualResetEventSlim over = new();
        using HostedMachine machine = HostedMachine.Create(Transported(new CreateBody("rehearsal", null, VmSpecJson.Write(spec))), new Props(kvm), endFile: null, prepared: null, _ => over.Set());
        machine.Start();
        if (!over.Wait(TimeSpan.FromSeconds(10)))
        {
            machine.Stop();
        }

        _ = machine.Stats(0);
    }

    /// <summary>As it will come from the daemon: encoded, decoded, read.</summary>
    private static CreateBody Transported(CreateBody body)
    {
        byte[] bytes = ControlCodec.Encode(new ControlFrame { Id = 1, Kind = ControlKinds.Create, Body = ControlCodec.Body(body, ControlJson.Default.CreateBody), Descriptors = [ResourceNames.Kvm] });
        ControlFrame? frame = ControlCodec.TryDecode(bytes, 1, out string problem);
        return frame is not null && ControlCodec.TryBody(frame, ControlJson.Default.CreateBody, out CreateBody? read, out problem) ? read : throw new RequestException("internal", problem);
    }

    /// <summary>The ELF64 with a PVH note around <see cref="Code"/>.</summary>
    private static byte[] Kernel()
    {
        byte[] file = new byte[256];
        new byte[] { 0x7F, (byte)'E', (byte)'L', (byte)'F', 2, 1, 1 }.CopyTo(file, 0);
        Put16(16, 2);    // ET_EXEC
        Put16(18, 62);   // EM_X86_64
        Put32(20, 1);
        Put32(24, Entry);
        Put32(32, 64);   // e_phoff
        Put16(52, 64);
        Put16(54, 56);
        Put16(56, 2);
        Segment(64, type: 1, offset: 200, address: Entry, length: (uint)Code.Length); // PT_LOAD
        Segment(120, type: 4, offset: 176, address: 0, length: 20);                   // PT_NOTE
        Put32(176, 4);
        Put32(180, 4);
        Put32(184, 18);  // XEN_ELFNOTE_PHYS32_ENTRY
        "Xen\0"u8.CopyTo(file.AsSpan(188));
        Put32(192, Entry);
        Code.CopyTo(file.AsSpan(200));
        return file;

        void Put16(int at, ushort value) => BinaryPrimitives.WriteUInt16LittleEndian(file.AsSpan(at), value);
        void Put32(int at, uint value) => BinaryPrimitives.WriteUInt32LittleEndian(file.AsSpan(at), value);
        void Segment(int at, uint type, uint offset, uint address, uint length)
        {
            Put32(at, type);
            Put32(at + 8, offset);
            Put32(at + 16, address);
            Put32(at + 24, address);
            Put32(at + 32, length);
            Put32(at + 40, length);
            Put32(at + 48, 4);
        }
    }

    private sealed class Props(KvmHandle kvm) : IMachineResources
    {
        public KvmSystem OpenKvm() => KvmSystem.FromDescriptor(kvm);

        public BootFile OpenKernel(BootSpec boot) => BootFile.FromBytes(Kernel(), boot.Kernel);

        public BootFile OpenInitrd(BootSpec boot) => throw new NotSupportedException("the rehearsal has no initrd");

        public IDiskBackend OpenDisk(int index, DiskSpec disk) => new MemoryDiskBackend(4096);

        public Vmm.Devices.Virtio.Net.INetBackend OpenNet(int index, NetSpec net) => throw new NotSupportedException("the rehearsal has no network");
    }
}

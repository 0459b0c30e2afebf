using System.Buffers.Binary;
using System.Text;
using Vmm.Machine.Boot;
using Vmm.Machine.Run;
using Vmm.Memory;
using Vmm.Spec;
using Vmm.Testing;
using static Vmm.Machine.Tests.Run.GuestKit;

namespace Vmm.Machine.Tests.Run;

/// <summary>A kernel that starts directly finds the entry point of SMBIOS in its first MiB, and by it the tables.</summary>
[Trait("Tier", "kvm")]
public sealed class SmbiosBootTests
{
    [KvmFact]
    public void A_kernel_finds_what_its_machine_is_called()
    {
        const string id = "6b29fc40-ca47-1067-b31d-00dd010662da";
        VmSpec spec = GuestSpec("hello").WithUuid(id);
        spec = spec with { Smbios = spec.Smbios! with { Serial = "ds=nocloud", OemStrings = [new string('x', 1000)] } };
        using Terminal terminal = new();
        using VirtualMachine machine = VirtualMachine.Create(spec, terminal);
        byte[] anchor = new byte[24];
        ulong place = 0xF_0000;
        for (; place < 0x10_0000 && !anchor.AsSpan().StartsWith("_SM3_"u8); place += 16) // as DSP0134 5.2.2 has it
        {
            Assert.True(machine.Memory.TryRead(new GuestAddress(place), anchor));
        }

        Assert.Equal(BootLayout.SmbiosAnchor, place - 16);
        Assert.Equal(0, anchor.Sum(each => each) & 0xFF);
        byte[] tables = new byte[BinaryPrimitives.ReadInt32LittleEndian(anchor.AsSpan(12))];
        ulong at = BinaryPrimitives.ReadUInt64LittleEndian(anchor.AsSpan(16));
        Assert.True(at + (ulong)tables.Length <= BootLayout.FirmwarePage && machine.Memory.TryRead(new GuestAddress(at), tables));
        string text = Encoding.Latin1.GetString(tables);
        Assert.Contains("Virtual machine\0ds=nocloud\0", text, StringComparison.Ordinal);
        Assert.Contains(Encoding.Latin1.GetString(Guid.Parse(id).ToByteArray()), text, StringComparison.Ordinal);
        Assert.Contains(new string('x', 1000) + "\0\0", text, StringComparison.Ordinal);
        Assert.Equal(127, tables[^6]);
    }
}

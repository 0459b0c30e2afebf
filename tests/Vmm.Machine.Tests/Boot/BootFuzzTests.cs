using FsCheck;
using FsCheck.Fluent;
using Vmm.Machine.Boot;
using static Vmm.Machine.Tests.Boot.KernelFiles;

namespace Vmm.Machine.Tests.Boot;

/// <summary>Whatever the file holds, the answer is a loaded kernel inside RAM or a BootException.</summary>
public sealed class BootFuzzTests : IDisposable
{
    private readonly TestRam _ram = new((0, 24 * Mib), (24 * Mib, 8 * Mib));

    public void Dispose() => _ram.Dispose();

    [Fact]
    public void Truncated_kernels_end_in_a_boot_error_at_every_length()
    {
        foreach (byte[] whole in new[] { BzImage(Pattern(2048)), Elf(Pattern(512)), Elf(Pattern(512), pvhEntry: 0x100_0000) })
        {
            for (int length = 0; length < whole.Length - 15; length++)
            {
                Assert.False(Boots(whole[..length]), $"{length} of {whole.Length} bytes were accepted");
            }

            Assert.True(Boots(whole));
        }
    }

    [Fact]
    public void Random_files_never_throw_anything_but_a_boot_error()
    {
        Check.QuickThrowOnFailure(Prop.ForAll(ArbMap.Default.ArbFor<byte[]>(), bytes =>
        {
            Boots(bytes);
            Boots([0x7F, (byte)'E', (byte)'L', (byte)'F', 2, 1, 1, .. bytes]);
            return true;
        }));
    }

    [Fact]
    public void Mutated_kernels_never_throw_anything_but_a_boot_error()
    {
        Random random = new(20261123);
        byte[][] seeds = [BzImage(Pattern(1024)), Elf(Pattern(256)), Elf(Pattern(256), pvhEntry: 0x100_0000)];
        byte[] interesting = [0, 1, 0x7F, 0x80, 0xFF];
        int accepted = 0;
        const int Rounds = 60_000;
        for (int round = 0; round < Rounds; round++)
        {
            byte[] file = [.. seeds[round % seeds.Length]];
            int header = round % seeds.Length == 0 ? 0x270 : 64 + 112 + 40;
            int changes = 1 + random.Next(6);
            for (int i = 0; i < changes; i++)
            {
                int at = random.Next(4) == 0
                    ? random.Next(file.Length)
                    : (round % seeds.Length == 0 ? random.Next(0x1F0, header) : random.Next(header));
                int width = Math.Min(1 << random.Next(4), file.Length - at);
                byte value = interesting[random.Next(interesting.Length)];
                for (int j = 0; j < width; j++)
                {
                    file[at + j] = random.Next(2) == 0 ? value : (byte)random.Next(256);
                }
            }

            accepted += Boots(file) ? 1 : 0;
        }

        // Both answers occur, or the loop tests nothing.
        Assert.InRange(accepted, 1, Rounds - 1);
    }

    private bool Boots(byte[] file)
    {
        try
        {
            using KernelImage kernel = KernelImage.Load(BootFile.FromBytes(file, "fuzz"));
            BootInfo info = BootLoader.Load(
                _ram.Memory, new BootRequest { Kernel = kernel, Initrd = BootFile.FromBytes(new byte[64], "initrd") });
            Assert.InRange(info.KernelEnd, info.KernelStart, 32 * Mib);
            Assert.True(info.KernelStart >= BootLayout.HighMemory);
            Assert.InRange(info.Cpu.Rip, info.KernelStart, info.KernelEnd);
            return true;
        }
        catch (BootException)
        {
            return false;
        }
    }
}

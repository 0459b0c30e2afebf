using System.Globalization;
using Microsoft.Win32.SafeHandles;
using Vmm.Interop;
using Vmm.Memory.Paging;

namespace Vmm.Memory.Tests;

/// <summary>A swap store over an unnamed file, and a second way to the file's bytes, as somebody would have who can change it.</summary>
internal sealed class SwapTestFile : IDisposable
{
    internal const int Page = ISwapStore.PageBytes;

    internal SwapTestFile(ulong limit, string? folder = null)
    {
        FileDescriptorHandle file = SwapFile.Create(folder ?? Path.GetTempPath(), limit, out bool isDirect);
        IsDirect = isDirect;
        string same = string.Create(CultureInfo.InvariantCulture, $"/proc/self/fd/{file.Number}");
        Raw = File.OpenHandle(same, FileMode.Open, FileAccess.ReadWrite, FileShare.ReadWrite | FileShare.Delete);
        Store = new SwapStore(file, limit);
    }

    internal bool IsDirect { get; }

    internal SwapStore Store { get; }

    internal SafeFileHandle Raw { get; }

    internal byte[] Content()
    {
        byte[] all = new byte[RandomAccess.GetLength(Raw)];
        Assert.Equal(all.Length, RandomAccess.Read(Raw, all, 0));
        return all;
    }

    internal SwapSlot[] Write(ReadOnlySpan<byte> pages)
    {
        SwapSlot[] slots = new SwapSlot[pages.Length / Page];
        Store.Write(pages, slots);
        return slots;
    }

    internal byte[] ReadOne(SwapSlot slot)
    {
        byte[] page = new byte[Page];
        SwapSlot[] slots = new SwapSlot[1];
        Assert.Equal(1, Store.Read(slot, page, slots));
        Assert.Equal(slot, slots[0]);
        return page;
    }

    /// <summary>Pages of text, of noise, half of each, all alike by turns.</summary>
    internal static byte[] Pages(Random random, int count)
    {
        byte[] pages = new byte[count * Page];
        for (int i = 0; i < count; i++)
        {
            Fill(random, pages.AsSpan(i * Page, Page));
        }

        return pages;
    }

    public void Dispose()
    {
        Store.Dispose();
        Raw.Dispose();
    }

    private static void Fill(Random random, Span<byte> page)
    {
        int noise = random.Next(4) switch { 0 => 0, 1 => Page / 2, 2 => 3900, _ => Page };
        random.NextBytes(page[..noise]);
        for (int i = noise; i < page.Length; i++)
        {
            page[i] = (byte)"the quick brown fox jumps over the lazy dog "[i % 44];
        }
    }
}

using System.Diagnostics;
using System.Text;
using Vmm.State;

namespace Vmm.State.Tests;

public sealed class DocumentTests
{
    [Fact]
    public void The_checksum_is_the_one_of_the_standard()
    {
        Assert.Equal(0xE3069283u, Crc32C.Of("123456789"u8)); // the check value of CRC-32C
        Assert.Equal(0x8A9136AAu, Crc32C.Of(new byte[32])); // RFC 3720 appendix B.4
    }

    [Fact]
    public void A_checksum_of_many_bytes_is_that_of_its_pieces()
    {
        Random random = new(7);
        for (int round = 0; round < 200; round++)
        {
            byte[] bytes = new byte[random.Next(1, 60_000)];
            random.NextBytes(bytes);
            uint whole = Crc32C.Of(bytes), byByte = 0, inPieces = 0;
            foreach (byte value in bytes)
            {
                byByte = Crc32C.Of([value], byByte);
            }

            for (int at = 0, count; at < bytes.Length; at += count)
            {
                count = Math.Min(random.Next(1, 30_000), bytes.Length - at);
                inPieces = Crc32C.Of(bytes.AsSpan(at, count), inPieces);
            }

            Assert.Equal((byByte, byByte), (whole, inPieces));
        }
    }

    [Fact]
    public void A_checksum_of_zeros_needs_no_zeros()
    {
        Random random = new(9);
        for (int round = 0; round < 500; round++)
        {
            byte[] zeros = new byte[random.Next(3) * random.Next(70_000)];
            uint before = (uint)random.NextInt64(1L << 32);
            Assert.Equal(Crc32C.Of(zeros, before), Crc32C.OfZeros((ulong)zeros.Length, before));
        }

        // 2^60 and more take no longer: a number is the sum of its parts.
        uint half = Crc32C.OfZeros(1UL << 60, 5);
        Assert.Equal(Crc32C.OfZeros((1UL << 61) + 3, 5), Crc32C.OfZeros(3, Crc32C.OfZeros(1UL << 60, half)));
    }

    [Fact]
    public void What_is_written_is_read_again()
    {
        for (int seed = 0; seed < 200; seed++)
        {
            StateDocument written = Documents.Random(new Random(seed));
            StateDocument read = StateDocumentReader.Read(StateDocumentWriter.Write(written));
            Documents.RequireEqual(written, read);
        }
    }

    [Fact]
    public void A_document_that_was_changed_anywhere_is_refused_or_says_the_same()
    {
        // Blanks between units may change; nothing else is without a meaning.
        StateDocument document = Documents.Random(new Random(7));
        byte[] good = StateDocumentWriter.Write(document);
        Random random = new(1);
        int refused = 0;
        for (int i = 0; i < 20_000; i++)
        {
            byte[] bad = Documents.Mutate(good, random);
            try
            {
                StateDocument read = StateDocumentReader.Read(bad);
                Documents.RequireEqual(document, read with { Program = document.Program });
            }
            catch (StateException)
            {
                refused++;
            }
        }

        Assert.True(refused > 15_000, $"{refused} of 20000 were refused");
    }

    [Fact]
    public void A_document_that_ends_anywhere_is_refused()
    {
        byte[] good = StateDocumentWriter.Write(Documents.Random(new Random(3)));
        for (int length = 0; length < good.Length; length++)
        {
            Assert.Throws<StateException>(() => StateDocumentReader.Read(good.AsMemory(0, length)));
        }
    }

    [Theory]
    [InlineData("""{"format":"other","version":1""", "not a saved VM")]
    [InlineData("""{"format":"vmm-saved-state","version":2,"x":""", "format version 2; this release reads version 1")]
    [InlineData("""{"version":1""", "another member than 'format' at byte 1")]
    [InlineData("", "damaged")]
    public void What_is_no_document_of_this_version_is_named(string text, string message) =>
        Refused.With(message, () => StateDocumentReader.Read(Encoding.UTF8.GetBytes(text)));

    [Fact]
    public void Hostile_documents_cost_neither_time_nor_memory_nor_stack()
    {
        const string head =
            """{"format":"vmm-saved-state","version":1,"program":"x","about":{"name":"about","crc32c":"00000000","records":""";
        const int size = 8 << 20;
        foreach (string text in new[]
        {
            head + new string('[', size),
            head + "[" + string.Concat(Enumerable.Repeat("{\"kind\":", size / 8)),
            head + "[{\"kind\":\"" + new string('a', size),
            head + "[{\"kind\":\"a\",\"version\":" + new string('9', size),
            head + "[{\"kind\":\"a\",\"version\":1,\"data\":" + string.Concat(Enumerable.Repeat("[0,", size / 3)),
            new string(' ', size),
        })
        {
            byte[] bytes = Encoding.UTF8.GetBytes(text);
            long before = GC.GetAllocatedBytesForCurrentThread();
            Stopwatch time = Stopwatch.StartNew();
            Assert.Throws<StateException>(() => StateDocumentReader.Read(bytes));
            Assert.InRange(GC.GetAllocatedBytesForCurrentThread() - before, 0, 4 * size);
            Assert.InRange(time.Elapsed.TotalSeconds, 0, 10);
        }
    }

    [Fact]
    public void Too_many_units_are_refused_and_too_large_a_document_is_not_looked_at()
    {
        UnitBlob[] units = [.. Enumerable.Range(0, StateDocument.MaxUnits + 1).Select(i => new UnitBlob(new PartId($"u{i}"), []))];
        Assert.Throws<StateException>(() => StateDocumentWriter.Write(new StateDocument("x", Documents.About, units)));
        byte[] fits = StateDocumentWriter.Write(new StateDocument("x", Documents.About, units[1..]));
        string text = Encoding.UTF8.GetString(fits);
        int end = text.LastIndexOf(']');
        string more = Encoding.UTF8.GetString(StateDocumentWriter.Write(new StateDocument("x", Documents.About, [units[0]])));
        int first = more.IndexOf('[', more.IndexOf("units", StringComparison.Ordinal)) + 1;
        byte[] beyond = Encoding.UTF8.GetBytes(text[..end] + "," + more[first..more.LastIndexOf(']')] + text[end..]);
        Refused.With($"more than {StateDocument.MaxUnits} units", () => StateDocumentReader.Read(beyond));
        Refused.With("at most", () => StateDocumentReader.Read(new byte[StateDocument.MaxBytes + 1]));
    }

    [Fact]
    public void Two_units_of_one_name_are_refused_in_both_directions()
    {
        UnitBlob unit = new(new PartId("uart"), []);
        Assert.Throws<StateException>(() => StateDocumentWriter.Write(new StateDocument("x", Documents.About, [unit, unit])));
        string text = Encoding.UTF8.GetString(StateDocumentWriter.Write(new StateDocument("x", Documents.About, [unit])));
        int start = text.IndexOf('[', text.IndexOf("units", StringComparison.Ordinal)) + 1, end = text.LastIndexOf(']');
        byte[] twice = Encoding.UTF8.GetBytes(text[..end] + "," + text[start..end] + text[end..]);
        Refused.With("two units", () => StateDocumentReader.Read(twice));
    }

    [Theory]
    [InlineData("vcpu0", true)]
    [InlineData("disk1/transport", true)]
    [InlineData("", false)]
    [InlineData("A", false)]
    [InlineData("a b", false)]
    [InlineData("a\u202e", false)]
    public void Names_of_units_are_plain(string name, bool isOne) => Assert.Equal(isOne, PartId.IsName(name));
}

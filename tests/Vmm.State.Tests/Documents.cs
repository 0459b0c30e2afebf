using System.Text;

namespace Vmm.State.Tests;

/// <summary>Documents of random content.</summary>
internal static class Documents
{
    internal static UnitBlob About { get; } = new(new PartId(StateDocument.AboutName), []);

    internal static StateDocument Random(Random random)
    {
        UnitBlob[] units = [.. Enumerable.Range(0, random.Next(6)).Select(i => Unit($"unit{i}", random))];
        return new StateDocument("9.9.9", Unit(StateDocument.AboutName, random), units);
    }

    internal static void RequireEqual(StateDocument expected, StateDocument actual)
    {
        Assert.Equal(expected.Program, actual.Program);
        Assert.Equal(Text(expected.About), Text(actual.About));
        Assert.Equal(expected.Units.Select(Text), actual.Units.Select(Text));
    }

    /// <summary>One to three small changes, of which the first is one for sure.</summary>
    internal static byte[] Mutate(byte[] bytes, Random random)
    {
        List<byte> copy = [.. bytes];
        for (int n = random.Next(1, 4); n > 0; n--)
        {
            int at = random.Next(copy.Count);
            switch (random.Next(4))
            {
                case 0:
                    copy[at] ^= (byte)(1 << random.Next(8));
                    break;
                case 1:
                    copy.RemoveAt(at);
                    break;
                case 2:
                    copy.Insert(at, (byte)random.Next(256));
                    break;
                default:
                    int length = Math.Min(random.Next(1, 40), copy.Count - at);
                    copy.InsertRange(random.Next(copy.Count), copy.GetRange(at, length));
                    break;
            }
        }

        return [.. copy];
    }

    private static UnitBlob Unit(string name, Random random) => new(
        new PartId(name),
        [.. Enumerable.Range(0, random.Next(4)).Select(i => Record(i, random))]);

    private static StateRecord Record(int i, Random random) => new($"kind-{i}", random.Next(1, 9), Encoding.UTF8.GetBytes(Json(random, 4)));

    private static string Json(Random random, int depth) => random.Next(depth > 0 ? 6 : 4) switch
    {
        0 => random.Next().ToString(),
        1 => $"\"{Convert.ToBase64String(Bytes(random))}\"",
        2 => "true",
        3 => "null",
        4 => $"[{string.Join(',', Enumerable.Range(0, random.Next(4)).Select(_ => Json(random, depth - 1)))}]",
        _ => $"{{{string.Join(',', Enumerable.Range(0, random.Next(4)).Select(i => $"\"m{i}\":{Json(random, depth - 1)}"))}}}",
    };

    private static byte[] Bytes(Random random)
    {
        byte[] bytes = new byte[random.Next(30)];
        random.NextBytes(bytes);
        return bytes;
    }

    private static string Text(UnitBlob unit) =>
        $"{unit.Name}: {string.Join(" | ", unit.Records.Select(r => $"{r.Kind} {r.Version} {Encoding.UTF8.GetString(r.Data.Span)}"))}";
}

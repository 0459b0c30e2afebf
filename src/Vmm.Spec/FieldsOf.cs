using Vmm.Memory;

namespace Vmm.Spec;

/// <summary>Makes the fields of a record: name, help, bounds, and how the value is read from the record and put into it.</summary>
internal static class FieldsOf<T> where T : class
{
    internal static SpecField Text(string name, string help, Func<T, string?> get, Func<T, string, T> set) =>
        Field(name, SpecKind.Text, help, get, set);

    internal static SpecField Path(string name, string help, Func<T, string?> get, Func<T, string, T> set) =>
        Field(name, SpecKind.Path, help, get, set);

    internal static SpecField Bool(string name, string help, Func<T, bool> get, Func<T, bool, T> set) =>
        Field(name, SpecKind.Bool, help, o => get(o), set);

    internal static SpecField Number(string name, string help, long min, long max, Func<T, long?> get, Func<T, int, T> set) =>
        Field<long>(name, SpecKind.Number, help, o => get(o), (o, v) => set(o, (int)v)) with { Min = min, Max = max };

    internal static SpecField LongNumber(string name, string help, long min, long max, Func<T, long?> get, Func<T, long, T> set) =>
        Field(name, SpecKind.Number, help, o => get(o), set) with { Min = min, Max = max };

    internal static SpecField Percent(string name, string help, long min, long max, Func<T, int?> get, Func<T, int, T> set) =>
        Field(name, SpecKind.Percent, help, o => get(o), set) with { Min = min, Max = max };

    internal static SpecField Portion(string name, string help, Func<T, MemoryPortion?> get, Func<T, MemoryPortion, T> set) =>
        Field(name, SpecKind.Portion, help, o => get(o), set);

    internal static SpecField Size(string name, string help, Func<T, ByteSize?> get, Func<T, ByteSize, T> set) =>
        Field(name, SpecKind.Size, help, o => get(o), set);

    internal static SpecField Set(string name, string help, Func<T, IReadOnlyList<int>> get, Func<T, IReadOnlyList<int>, T> set) =>
        Field(name, SpecKind.Set, help, get, set);

    internal static SpecField Word<TWord>(string name, string help, Func<T, TWord?> get, Func<T, TWord, T> set)
        where TWord : struct, Enum => new(name, SpecKind.Word, help)
        {
            WordSource = Names.All<TWord>,
            Get = owner => get((T)owner) is { } value ? Names.Of(value) : null,
            Set = (owner, word) => Names.TryParse((string)word, out TWord value) ? set((T)owner, value) : owner,
        };

    /// <summary>A word that is a text in the record, too.</summary>
    internal static SpecField Word(string name, string help, Func<string[]> words, Func<T, string> get, Func<T, string, T> set) =>
        Field(name, SpecKind.Word, help, get, set) with { WordSource = words };

    /// <summary>A list of texts.</summary>
    internal static SpecField Texts(
        string name, string help, int most, int longest, Func<T, IReadOnlyList<string>> get, Func<T, IReadOnlyList<string>, T> set) =>
        new(name, SpecKind.List, help)
        {
            Max = most,
            Item = new("", SpecKind.Text, "One of " + name) { Max = longest },
            Get = owner => get((T)owner),
            Set = (owner, items) => set((T)owner, [.. ((List<object>)items).Cast<string>()]),
        };

    /// <summary>An object that is a record of its own.</summary>
    internal static SpecField Object<TPart>(string name, string help, Func<T, TPart?> get, Func<T, TPart, T> set, params SpecField[] fields)
        where TPart : class, new() =>
        Field(name, SpecKind.Object, help, get, set) with { Fields = fields, Create = () => new TPart() };

    /// <summary>A list of records.</summary>
    internal static SpecField List<TPart>(
        string name,
        string help,
        int most,
        Func<T, IReadOnlyList<TPart>> get,
        Func<T, IReadOnlyList<TPart>, T> set,
        params SpecField[] fields)
        where TPart : class, new() => new(name, SpecKind.List, help)
        {
            Max = most,
            Fields = fields,
            Create = () => new TPart(),
            Get = owner => get((T)owner),
            Set = (owner, items) => set((T)owner, [.. ((List<object>)items).Cast<TPart>()]),
        };

    /// <summary>A list of records of several types.</summary>
    internal static SpecField ListOfKinds<TPart>(
        string name,
        string help,
        int most,
        Func<T, IReadOnlyList<TPart>> get,
        Func<T, IReadOnlyList<TPart>, T> set,
        Func<SpecField[]> kinds)
        where TPart : class => new(name, SpecKind.List, help)
        {
            Max = most,
            Kinds = kinds,
            Get = owner => get((T)owner),
            Set = (owner, items) => set((T)owner, [.. ((List<object>)items).Cast<TPart>()]),
        };

    /// <summary>A list of rows of numbers.</summary>
    internal static SpecField Matrix(string name, string help, SpecField number, Func<T, IReadOnlyList<IReadOnlyList<int>>?> get,
        Func<T, IReadOnlyList<IReadOnlyList<int>>, T> set) =>
        new(name, SpecKind.List, help)
        {
            Max = SpecValidation.MaxVnodes,
            Item = new("", SpecKind.List, "One row") { Max = SpecValidation.MaxVnodes, Item = number },
            Get = owner => get((T)owner),
            Set = (owner, rows) =>
                set((T)owner, [.. ((List<object>)rows)
                    .Cast<List<object>>()
                    .Select(row => (IReadOnlyList<int>)[.. row.Cast<long>().Select(v => (int)v)])]),
        };

    /// <summary>Fields of a part that the owner has among its own.</summary>
    internal static IEnumerable<SpecField> Lift<TPart>(IEnumerable<SpecField> fields, Func<T, TPart> get, Func<T, TPart, T> set)
        where TPart : class =>
        fields.Select(field => field with
        {
            Get = owner => field.Get(get((T)owner)),
            Set = (owner, value) => set((T)owner, (TPart)field.Set(get((T)owner), value)),
        });

    private static SpecField Field<TValue>(string name, SpecKind kind, string help, Func<T, object?> get, Func<T, TValue, T> set) =>
        new(name, kind, help)
        {
            Get = owner => get((T)owner),
            Set = (owner, value) => set((T)owner, (TValue)value),
        };
}
